"""Plots of the study's tables for print, in colours that colour-blind readers can tell apart.

Every function takes a table of `<results>/tables` and returns a figure. Configurations keep the order in which they are
passed. Beside its colour each scheme or model has a marker or a dash of its own, so that grey prints can be read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, ScalarFormatter

from volprompt.numbers import KINDS, number
from volprompt.palette import GREY, INK, PALE, SURPLUS
from volprompt.report.plot_style import (
    ROW,
    WIDTH,
    Look,
    Models,
    Pair,
    add_legend,
    one_column,
    plain,
    styled,
    two_columns,
)

# Volumes from which 5 and 95 percentiles are drawn: below it they are hardly more than the extremes.
WHISKERS = 20


@styled
def distributions(scores: pd.DataFrame, structure: str, order: Sequence[Pair], schemes: Look) -> Figure:
    """Plot the Dice of every volume with median, quartiles, and 5 and 95 percentiles, one row per configuration.

    scores: rows of the score table.
    structure: whose Dice is plotted.
    order: the configurations, top down.
    schemes: looks of the schemes.

    Points are jittered with a fixed seed; many are drawn as one picture. Percentiles take at least WHISKERS values,
    quartiles six.
    """
    figure, axes = one_column(order, f"Dice, {structure}")
    chosen = scores[(scores["structure"] == structure) & scores["dice"].notna()]
    groups = {(str(m), str(s)): part["dice"].to_numpy() for (m, s), part in chosen.groupby(["model", "scheme"])}
    random = np.random.default_rng(0)
    for row, pair in enumerate(order):
        values = groups.get(pair, np.empty(0))
        look = schemes.mark(pair[1])
        many = len(values) > 60
        heights = row + random.uniform(-0.32, 0.32, len(values))
        points: dict[str, Any] = {
            "s": 3 if many else 14,
            "alpha": 0.3 if many else 0.85,
            "linewidths": 0,
            "rasterized": many,
        }
        axes.scatter(values, heights, zorder=2, **look, **points)
        if len(values) < 2:
            continue
        low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
        if len(values) >= WHISKERS:
            axes.plot([low, high], [row, row], color=INK, linewidth=0.8, zorder=3)
        if len(values) >= 6:
            axes.plot([first, third], [row, row], color=INK, linewidth=3.2, zorder=3, solid_capstyle="butt")
        axes.plot([middle, middle], [row - 0.36, row + 0.36], color=INK, linewidth=1.4, zorder=4)
    add_legend(figure, schemes, [scheme for _, scheme in order])
    return figure


@styled
def differences(comparisons: pd.DataFrame, kind: str, structure: str = "combined") -> Figure:
    """Plot median paired differences of Dice with their intervals.

    comparisons: the table of comparisons; kind: of the pairs, as in that table; structure: whose Dice was compared.
    """
    chosen = comparisons[
        (comparisons["structure"] == structure) & (comparisons["kind"] == kind) & (comparisons["score"] == "dice")
    ]
    part = chosen.sort_values("model" if kind == "schemes" else "scheme", key=_order_of_appearance, kind="stable")
    figure = Figure(figsize=(WIDTH, ROW * len(part) + 0.7), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.9)
    for position, row in enumerate(part.itertuples()):
        certain = not (np.isnan(row.low) or row.low <= 0 <= row.high)
        if not np.isnan(row.low):
            axes.plot([row.low, row.high], [position, position], color=INK, linewidth=1.4)
        face = INK if certain else "white"
        axes.plot(row.median_difference, position, "o", color=INK, markerfacecolor=face, markersize=4)
    axes.set_yticks(range(len(part)), [plain(difference_name(row, kind)) for row in part.itertuples()])
    axes.set_ylim(len(part) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"Median difference of Dice, {plain(structure)} (first − second)")
    return figure


def _order_of_appearance(names: pd.Series) -> pd.Series:
    """Return the place of every name in the order of first appearance."""
    return pd.Series(pd.factorize(names)[0], index=names.index)


def difference_name(row: Any, kind: str) -> str:
    """Name a comparison in the order of the subtraction: `model: other scheme − scheme`, what both share before it.

    row: of the table of comparisons; kind: of its pairs. With the baseline, whole configurations are compared.
    """
    model, other_model = row.model, row.other_model
    scheme, other_scheme = row.scheme, row.other_scheme
    if kind == "baseline":
        return f"{other_model} {other_scheme} − {model} {scheme}"
    if model == other_model:
        return f"{model}: {other_scheme} − {scheme}"
    return f"{scheme}: {other_model} − {model}"


@styled
def propagation(table: pd.DataFrame, order: Sequence[Pair], structure: str = "combined") -> Figure:
    """Plot three median Dice on the left and the over-propagation on the right, one row per configuration.

    table: propagation.csv; order: the configurations, top down; structure: whose values are plotted.
    """
    figure, axes, right = two_columns(order)
    rows = table[table["structure"] == structure].set_index(["model", "scheme"])
    for position, pair in enumerate(order):
        if pair not in rows.index:
            continue
        row = rows.loc[pair]
        marks = [row["dice"], row["dice_where_present"], row["dice_prompted"]]
        known = [value for value in marks if not np.isnan(value)]
        if known:
            axes.plot([min(known), max(known)], [position] * 2, color=PALE, linewidth=2, zorder=1)
        for value, (marker, face, size, _) in zip(marks, PROPAGATION_MARKS, strict=True):
            axes.plot(value, position, marker, color=INK, markerfacecolor=face, markersize=size, zorder=3)
        right.plot([row["over_propagation"], row["over_propagation_worst"]], [position] * 2, color=PALE, zorder=1)
        right.plot(row["over_propagation"], position, "o", color=SURPLUS, markersize=5, clip_on=False)
        right.plot(row["over_propagation_worst"], position, "|", color=SURPLUS, markersize=7, markeredgewidth=1.5)
    axes.set_xlabel(f"Median Dice, {plain(structure)}")
    right.set_xlabel("Over-propagation: median (dot)\nand worst (bar)")
    right.set_xlim(left=0, right=max(0.01, right.get_xlim()[1]))
    right.xaxis.set_major_locator(MaxNLocator(4))
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=KINDS["share"].digits, symbol=KINDS["share"].unit))
    handles = [
        Line2D([], [], marker=marker, color=INK, markerfacecolor=face, linestyle="", label=label)
        for marker, face, _, label in PROPAGATION_MARKS
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


PROPAGATION_MARKS = (
    ("o", INK, 3.5, "whole volume"),
    ("s", "none", 7, "slices that show the structure"),
    ("*", GREY, 6, "prompted slice"),
)


@styled
def ranks(table: pd.DataFrame, schemes: Look) -> Figure:
    """Plot the rank of each configuration with its bootstrap interval, the best on top. table: ranks.csv."""
    ordered = table.dropna(subset=["rank"]).sort_values("rank", kind="stable")
    order = [(str(model), str(scheme)) for model, scheme in ordered[["model", "scheme"]].itertuples(index=False)]
    figure, axes = one_column(order, "Rank by median combined Dice (1 is best)", separators=False)
    for position, row in enumerate(ordered.itertuples()):
        look = schemes.mark(str(row.scheme))
        axes.plot([row.rank_low, row.rank_high], [position] * 2, color=look["color"], linewidth=1.6)
        axes.plot(row.rank, position, markersize=5, linestyle="", **look)
        if row.first_share >= 0.005 and not np.isnan(row.rank_high):
            text = f"first in {number(row.first_share, 'share')}"
            axes.annotate(
                text,
                (max(row.rank, row.rank_high), position),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_xlim(0.5, len(order) + 1.5)
    step = 1 if len(order) <= 10 else 5 * -(-len(order) // 50)
    axes.set_xticks(sorted({1, *range(step, len(order) + 1, step)}))
    add_legend(figure, schemes, [scheme for _, scheme in order])
    return figure


# What Dice is plotted against: a column of cost.csv, and the label of its axis.
COSTS = {
    "seconds_per_volume": "Seconds per volume (median)",
    "human_prompts_per_volume": "Prompts that a person gives per volume (median)",
}


@styled
def cost(table: pd.DataFrame, schemes: Look, models: Models, against: str = "seconds_per_volume") -> Figure:
    """Plot the median combined Dice against what it costs: the machine's seconds, or a person's prompts.

    table: cost.csv; against: a column of COSTS. A line joins the configurations that no other one beats in both.
    """
    known = table.dropna(subset=["dice", against])
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    best = undominated(known[against].to_numpy(float), known["dice"].to_numpy())
    front = known.iloc[best]
    axes.plot(front[against], front["dice"], color=GREY, linewidth=0.9, drawstyle="steps-post", zorder=1)
    for row in known.itertuples():
        colour, marker = schemes.of[row.scheme]["color"], models.of[row.model]["marker"]
        place = getattr(row, against)
        axes.plot(place, row.dice, marker, color=colour, markersize=7, markeredgecolor="white", zorder=3)
    if len(known) and known[against].max() > 3 * known[against].min() > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(COSTS[against])
    axes.set_ylabel("Median Dice, combined")
    axes.grid(which="both")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=schemes.of[name]["color"], label=plain(name))
        for name in known["scheme"].drop_duplicates()
    ]
    handles += [
        Line2D([], [], marker=models.of[name]["marker"], linestyle="", color=INK, label=plain(name))
        for name in known["model"].drop_duplicates()
    ]
    figure.legend(handles=handles, loc="outside right upper", title="colour: prompts\nshape: model", alignment="left")
    return figure


@styled
def training(medians: pd.DataFrame, steps: Mapping[str, int], schemes: Look) -> Figure:
    """Plot the median combined Dice against the training step of a run's checkpoints, a line per scheme.

    medians: the median table; steps: training step by model, other models are left out; schemes: looks of the schemes.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    known = medians[medians["model"].isin(list(steps))].dropna(subset=["combined"])
    for scheme, rows in known.groupby("scheme", sort=False):
        ordered = rows.assign(step=rows["model"].map(steps)).sort_values("step")
        look = schemes.of[str(scheme)]
        axes.plot(ordered["step"], ordered["combined"], **look, markersize=4, label=plain(scheme))
        axes.fill_between(
            ordered["step"], ordered["combined_low"], ordered["combined_high"], color=look["color"], alpha=0.15
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Training step")
    axes.set_ylabel("Median Dice, combined")
    axes.grid()
    figure.legend(loc="outside right upper")
    return figure


def undominated(cost: np.ndarray, gain: np.ndarray) -> list[int]:
    """Return the indices of those for which no other has a lower cost and at least the same gain, by rising cost.

    cost, gain: float (n,), without NaN.
    """
    front: list[int] = []
    for index in np.lexsort((-gain, cost)):
        if not front or gain[index] > gain[front[-1]]:
            front.append(int(index))
    return front
