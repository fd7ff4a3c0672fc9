"""The colours of figures, report and click page, which colour-blind readers can tell apart. Each stands for one thing.

Structures, schemes, and voxels too many or too few have colours of their own. A model has no colour: it is a shade of
its scheme's, beside its marker and dash. What belongs to none of them is drawn in ink and greys.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

# Okabe and Ito's. On grey frames, the brightest first; also on white paper.
STRUCTURE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#B2672B")
# Okabe and Ito's too: predicted voxels that the reference lacks, and the other way round.
SURPLUS, LACKING = "#D55E00", "#0072B2"
# Dark ones for white paper: those of Tol's schemes `muted` and `dark` that resemble none of the above.
SCHEME_COLOURS = ("#332288", "#882255", "#117733", "#999933", "#225555", "#AA4499", "#663333", "#44AA99")
INK, GREY, PALE, GRID = "#1C2530", "#8A949E", "#C3CAD1", "#D9DFE5"


def structure_colours(configured: Iterable[str]) -> dict[str, str]:
    """Return the colour of each structure. configured: all structures in the configuration's order, scored or not."""
    return dict(zip(configured, cycle(STRUCTURE_COLOURS), strict=False))


def shades(colour: str, count: int) -> list[str]:
    """Return shades of a colour, the lightest first and the colour itself last."""
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    towards_white = [0.62 * (count - 1 - step) / max(1, count - 1) for step in range(count)]
    return ["#" + "".join(f"{round(c + (255 - c) * share):02X}" for c in channels) for share in towards_white]
