"""What all plots share: sizes, colours and markers of schemes, rows of configurations, and how they are written."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from volprompt.files import atomic
from volprompt.palette import GRID, INK, SCHEME_COLOURS, WARNING, shades

# Inches: 180 mm, the width of a page of most journals.
WIDTH = 180 / 25.4
ROW = 0.235
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)), (0, (3, 3)))
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.facecolor": "none",  # the figure's ground is enough
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
Pair = tuple[str, str]
P = ParamSpec("P")
R = TypeVar("R")


class Look:
    """Colour, marker and dash of each scheme; the same scheme looks the same in every plot of one `Look`."""

    def __init__(self, schemes: Sequence[str]) -> None:
        kinds = zip(schemes, cycle(SCHEME_COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
        self.of: dict[str, dict[str, Any]] = {}
        for name, colour, marker, dash in kinds:
            self.of[name] = {"color": colour, "marker": marker, "linestyle": dash}

    def mark(self, name: str) -> dict[str, Any]:
        """Return colour and marker, for points."""
        return {key: self.of[name][key] for key in ("color", "marker")}


class Models:
    """Marker, dash and shade of each model; the same model looks the same in every plot of one `Models`."""

    def __init__(self, names: Sequence[str]) -> None:
        kinds = zip(names, cycle(MARKERS), cycle(DASHES), strict=False)
        self.of: dict[str, dict[str, Any]] = {name: {"marker": mark, "linestyle": dash} for name, mark, dash in kinds}

    def look(self, name: str, colour: str) -> dict[str, Any]:
        """Return colour, marker and dash of a model among others. colour: of the scheme, or ink for any of them."""
        return {"color": shades(colour, len(self.of))[list(self.of).index(name)], **self.of[name]}


def plain(text: object) -> str:
    """Escape a text for matplotlib, where a dollar sign would begin a formula."""
    return str(text).replace("$", r"\$")


def configurations_of(table: pd.DataFrame) -> list[Pair]:
    """Return the pairs of model and scheme, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in this module's style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


# What of a figure's making matplotlib would write into the file, and change with every run.
UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
PRINT_DPI = 600  # of PNG: 4320 pixels across


def write_figure(figure: Figure, folder: Path, name: str, stamp: str = "", formats: Sequence[str] = ()) -> str:
    """Write `{name}.svg`, the same bytes for the same figure, and further formats. Returns the SVG as text.

    figure: the figure.
    folder: where the files go.
    name: of the files, without ending.
    stamp: a word across the figure, such as SIMULATED.
    formats: `pdf`, `png`.
    """
    if stamp:
        figure.text(0.5, 0.5, stamp, fontsize=46, color=WARNING, alpha=0.16, rotation=20, ha="center", va="center")
    salted: dict[Any, Any] = {"svg.hashsalt": name, "savefig.dpi": 200, **STYLE}
    with matplotlib.rc_context(salted):
        for format_ in ("svg", *formats):
            with atomic(folder / f"{name}.{format_}") as path, io.BytesIO() as stream:
                dots: dict[str, Any] = {"dpi": PRINT_DPI} if format_ == "png" else {}
                figure.savefig(stream, format=format_, metadata=UNDATED[format_], **dots)
                path.write_bytes(stream.getvalue())
            figure.set_layout_engine("none")  # the places stay; laying out again takes as long as drawing
    return (folder / f"{name}.svg").read_text(encoding="utf-8")


def inline_svg(drawn: str, label: str) -> str:
    """Turn the text of an SVG file into an element of a page.

    drawn: the file's text; label: for screen readers, already escaped. Identifiers of groups, which nothing refers to,
    are left out, since they would repeat from figure to figure; so is the ground, which the page has behind the figure.
    """
    element = drawn[drawn.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = element.replace('style="fill: #ffffff"', 'style="fill: none"', 1)
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def one_column(order: Sequence[Pair], label: str, separators: bool = True) -> tuple[Figure, Axes]:
    """Make a figure with one row per configuration.

    order: the configurations, top down; label: of the x axis; separators: whether lines separate the models.
    """
    figure = Figure(figsize=(WIDTH, ROW * len(order) + 1.0), layout="constrained")
    axes = figure.subplots()
    _label_rows(axes, order, separators)
    axes.set_xlabel(plain(label))
    return figure, axes


def two_columns(order: Sequence[Pair]) -> tuple[Figure, Axes, Axes]:
    """Make a figure with one row per configuration and two plots side by side."""
    figure = Figure(figsize=(WIDTH, ROW * len(order) + 1.15), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    _label_rows(left, order)
    right.grid(axis="x")
    right.tick_params(axis="y", length=0)
    return figure, left, right


def _label_rows(axes: Axes, order: Sequence[Pair], separators: bool = True) -> None:
    """Label one row per configuration, top down, with a line between models."""
    axes.set_yticks(range(len(order)), [plain(f"{model}  {scheme}") for model, scheme in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    for position in range(1, len(order)):
        if separators and order[position][0] != order[position - 1][0]:
            axes.axhline(position - 0.5, color=GRID, linewidth=0.8, zorder=0)


def add_legend(figure: Figure, look: Look, names: Sequence[str]) -> None:
    """Add a legend of names with their marks."""
    distinct = list(dict.fromkeys(names))
    handles = [Line2D([], [], linestyle="", label=plain(name), **look.mark(name)) for name in distinct]
    add_legend_of(figure, handles)


def add_legend_of(figure: Figure, handles: Sequence[Line2D], most: int = 4) -> None:
    """Add a legend above a figure, read row by row; matplotlib fills columns. most: entries of a row."""
    columns = min(most, len(handles))
    by_row = [handle for first in range(columns) for handle in handles[first::columns]]
    figure.legend(handles=by_row, loc="outside upper left", ncols=columns)
