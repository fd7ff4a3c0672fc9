"""The plot of predicted against reference volumes, after Bland and Altman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from volprompt.palette import GREY
from volprompt.report.plot_style import MARKERS, WIDTH, Pair, add_legend_of, plain, styled
from volprompt.tables.agreement import volumes_ml

COLUMNS = 3


@styled
def agreement(
    scores: pd.DataFrame, table: pd.DataFrame, order: Sequence[Pair], structures: Mapping[str, str]
) -> Figure:
    """Plot the difference of the volumes against their mean, millilitres, a panel per configuration.

    scores: the score table; table: agreement.csv; order: the configurations; structures: colours of those that are
    drawn. Lines are the mean difference (solid) and the limits of agreement (dashed) where there are any.
    """
    looks: dict[str, dict[str, Any]] = {
        name: {"color": colour, "marker": marker}
        for (name, colour), marker in zip(structures.items(), cycle(MARKERS), strict=False)
    }
    rows = -(-len(order) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 2.2 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    done = scores[(scores["status"] == "ok") & scores["reference_mm3"].notna()]
    lines = table.set_index(["model", "scheme", "structure"])
    for axes, pair in zip(grid.flat, order, strict=False):
        axes.axhline(0, color=GREY, linewidth=0.8)
        here = done[(done["model"] == pair[0]) & (done["scheme"] == pair[1])]
        for name, colour in structures.items():
            mean, difference = volumes_ml(here[here["structure"] == name])
            if not len(mean):
                continue
            axes.plot(mean, difference, linestyle="", markersize=2.8, alpha=0.6, markeredgewidth=0, **looks[name])
            limits = lines.loc[(*pair, name)]
            axes.axhline(limits["bias_ml"], color=colour, linewidth=1)
            for end in ("low_ml", "high_ml"):
                if not np.isnan(limits[end]):
                    axes.axhline(limits[end], color=colour, linewidth=0.8, linestyle="--")
        axes.set_title(plain("\n".join(pair)), loc="left")
    for axes in list(grid.flat)[len(order) :]:
        axes.set_visible(False)
    figure.supxlabel("Mean of predicted and reference volume (ml)", fontsize=8)
    figure.supylabel("Predicted − reference (ml)", fontsize=8)
    handles = [Line2D([], [], linestyle="", label=plain(name), **looks[name]) for name in structures]
    add_legend_of(figure, handles)
    return figure
