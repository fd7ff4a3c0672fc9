"""The plot of the Dice by distance from the prompted slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from volprompt.palette import GREY, INK, PALE
from volprompt.report.plot_style import WIDTH, Look, Models, add_legend_of, plain, styled

OPEN_MARK: dict[str, Any] = {"markerfacecolor": "white", "markersize": 2.6, "markeredgewidth": 0.6, "linestyle": ""}


@styled
def decay(table: pd.DataFrame, scored: Sequence[str], schemes: Look, models: Models) -> Figure:
    """Plot the pooled Dice by millimetres from the prompted slice, and the number of volumes.

    table: decay.csv; scored: names of the scored structures; schemes, models: their looks. There is a panel per
    structure and scheme, in the scheme's colour. Distances with too few subjects for an interval have open markers and
    a thin line. Where all volumes have the same slice spacing, a second axis counts slices.
    """
    columns = list(table["scheme"].drop_duplicates())
    shown = [name for name in scored if (table["structure"] == name).any()]
    figure = Figure(figsize=(WIDTH, 2.25 * len(shown) + 0.9), layout="constrained")
    heights = [4, 1] * len(shown)
    grid = figure.subplots(
        2 * len(shown), len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=heights
    )
    place = table["distance_mm"].where(table["direction"] != "reverse", -table["distance_mm"])
    signed = table[table["volumes_by_mm"] > 0].assign(place=place)
    for row, structure in enumerate(shown):
        for column, scheme in enumerate(columns):
            upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
            here = signed[(signed["structure"] == structure) & (signed["scheme"] == scheme)]
            for model, part in here.groupby("model", sort=False):
                _draw_curve(upper, part.sort_values("place"), models.look(str(model), schemes.of[scheme]["color"]))
            volumes = here.groupby("place")["volumes_by_mm"].max()
            lower.fill_between(volumes.index, volumes, step="mid", color=PALE, linewidth=0)
            upper.axvline(0, color=GREY, linewidth=0.8)
            upper.set_title(f"{plain(structure)}, {plain(scheme)}", loc="left")
            upper.grid(axis="y")
            lower.set_ylim(0)
            lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        grid[2 * row, 0].set_ylabel("Dice (pooled)")
        grid[2 * row + 1, 0].set_ylabel("volumes")
    for axes in grid[-1]:
        axes.set_xlabel("Millimetres from the prompted slice\n(reverse < 0 < forward)")
        axes.xaxis.set_major_locator(MaxNLocator(6))
    slice_mm = table["slice_mm"].iloc[0]
    for axes in grid[0] if slice_mm > 0 else []:
        _add_slices(axes, float(slice_mm))
    looks = {str(name): models.look(str(name), INK) | {"marker": ""} for name in table["model"].drop_duplicates()}
    lines = [Line2D([], [], label=plain(name), linewidth=1.4, **look) for name, look in looks.items()]
    if signed["low_by_mm"].isna().any():
        few = {"color": GREY, "marker": "o", **OPEN_MARK}
        lines.append(Line2D([], [], label="too few subjects for an interval", **few))
    add_legend_of(figure, lines)
    return figure


def _draw_curve(axes: Axes, points: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """Draw a model's Dice: thin and with open markers where there is no interval. points: from left to right."""
    line = {key: look[key] for key in ("color", "linestyle")}
    sparse = points[points["low_by_mm"].isna()]
    certain = points["dice_by_mm"].where(points["low_by_mm"].notna())
    axes.plot(points["place"], points["dice_by_mm"], linewidth=0.5, **line)
    axes.fill_between(
        points["place"], points["low_by_mm"], points["high_by_mm"], color=look["color"], alpha=0.15, linewidth=0
    )
    axes.plot(points["place"], certain, linewidth=1.4, **line)
    axes.plot(sparse["place"], sparse["dice_by_mm"], **{**look, **OPEN_MARK})


def _add_slices(axes: Axes, slice_mm: float) -> None:
    """Add an axis of slices above, for volumes of this spacing."""

    def to_slices(millimetres: Any) -> Any:
        return millimetres / slice_mm

    def to_millimetres(slices: Any) -> Any:
        return slices * slice_mm

    above = axes.secondary_xaxis("top", functions=(to_slices, to_millimetres))
    above.set_xlabel("Slices")
    above.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    above.tick_params(labelsize=6.5, length=2)
