"""The colours of figures, report and click page. Okabe and Ito's: colour-blind readers can tell them apart, too."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
# On grey frames, the brightest first.
STRUCTURE_COLOURS = (SKY_BLUE, ORANGE, GREEN, PURPLE, YELLOW, BLUE)
# On white paper, the two pale ones last.
PLOT_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK, YELLOW)


def structure_colours(configured: Iterable[str]) -> dict[str, str]:
    """Return the colour of each structure. configured: all structures in the configuration's order, scored or not."""
    return dict(zip(configured, cycle(STRUCTURE_COLOURS), strict=False))
