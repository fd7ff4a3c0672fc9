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
# On frames: the ground around them, outlines of the reference with the rim that shows them on bright and dark, and
# letters. Surfaces that agree are neither too far out nor too far in. A warning, and the stamp across a page.
GROUND, OUTLINE, RIM, LETTERS = "#10151A", "#FFFFFF", "#000000", "#E8EDF2"
AGREES, WARNING = "#F0F0F0", "#B00020"
# What pages call these colours; those of structures come with each page's data.
NAMED = {
    "surplus": SURPLUS,
    "lacking": LACKING,
    "agrees": AGREES,
    "ground": GROUND,
    "outline": OUTLINE,
    "rim": RIM,
    "letters": LETTERS,
    "marks": GRID,
    "bars": GREY,
    "dark": INK,
    "warning": WARNING,
}


def style_sheet() -> str:
    """Return the named colours as properties of a style sheet, which a page's script reads too."""
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in NAMED.items()) + " }"


def structure_colours(configured: Iterable[str]) -> dict[str, str]:
    """Return the colour of each structure. configured: all structures in the configuration's order, scored or not."""
    return dict(zip(configured, cycle(STRUCTURE_COLOURS), strict=False))


def shades(colour: str, count: int) -> list[str]:
    """Return shades of a colour, the lightest first and the colour itself last."""
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    towards_white = [0.62 * (count - 1 - step) / max(1, count - 1) for step in range(count)]
    return ["#" + "".join(f"{round(c + (255 - c) * share):02X}" for c in channels) for share in towards_white]
