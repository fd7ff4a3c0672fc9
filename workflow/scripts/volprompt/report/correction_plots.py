"""Plots of corrections and of confidence, in the style of `plots.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from volprompt.palette import GREY, INK
from volprompt.report.plot_style import WIDTH, Look, Models, add_legend_of, configurations_of, plain, styled

COLUMNS = 3


@styled
def corrections(table: pd.DataFrame, schemes: Look, models: Models, structure: str = "combined") -> Figure:
    """Plot the median Dice against the rounds of clicks, and against all prompts that a person gave.

    table: corrections.csv; structure: whose Dice is plotted. There is a line per configuration, with its interval where
    there is one. The scale of prompts is logarithmic where configurations differ widely in them.
    """
    chosen = table[table["structure"] == structure]
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for model, scheme in configurations_of(chosen):
        rows = chosen[(chosen["model"] == model) & (chosen["scheme"] == scheme)].sort_values("round")
        look = models.look(model, schemes.of[scheme]["color"])
        for axes, column in ((left, "round"), (right, "prompts")):
            axes.plot(rows[column], rows["dice"], **look, markersize=4, label=plain(f"{model}  {scheme}"))
            axes.fill_between(rows[column], rows["dice_low"], rows["dice_high"], color=look["color"], alpha=0.15)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("Rounds of correction clicks")
    right.set_xlabel("Prompts given in all (median)")
    if len(chosen) and chosen["prompts"].max() > 10 * chosen["prompts"].min():
        right.set_xscale("log")
    left.set_ylabel(f"Median Dice, {plain(structure)}")
    for axes in (left, right):
        axes.grid()
    if left.lines:
        add_legend_of(figure, left.lines, most=2)
    return figure


@styled
def confidence(scores: pd.DataFrame, table: pd.DataFrame, order: Sequence[tuple[str, str]]) -> Figure:
    """Plot the combined Dice of every volume against its predicted IoU, a panel per configuration.

    scores: the score table; table: confidence.csv; order: the configurations. A vertical line stands at the confidence
    below which a reader should look.
    """
    rows = -(-len(order) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 2.2 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    chosen = scores[scores["structure"] == "combined"]
    limits = table[table["measure"] == "predicted_iou"].set_index(["model", "scheme"])["look_below"]
    for axes, pair in zip(grid.flat, order, strict=False):
        here = chosen[(chosen["model"] == pair[0]) & (chosen["scheme"] == pair[1])]
        axes.plot(here["predicted_iou"], here["dice"], "o", color=INK, markersize=3, alpha=0.7, markeredgewidth=0)
        if pair in limits.index and not np.isnan(limits[pair]):
            axes.axvline(limits[pair], color=GREY, linewidth=1, linestyle="--")
        axes.set_title(plain("\n".join(pair)), loc="left")
        axes.grid()
    for axes in list(grid.flat)[len(order) :]:
        axes.set_visible(False)
    figure.supxlabel("Predicted IoU, mean over the slices of a mask", fontsize=8)
    figure.supylabel("Dice, combined", fontsize=8)
    return figure
