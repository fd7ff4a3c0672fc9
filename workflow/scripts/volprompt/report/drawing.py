"""Prompts and masks drawn on a frame, as in the paper's Figure 2."""

from __future__ import annotations

import io
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from volprompt.prompts.schemes import ObjectPrompt
from volprompt.report.borders import border_path
from volprompt.report.plot_style import WIDTH
from volprompt.report.shown import prompted_pixels

COLUMNS = 3
SMALL = 7
CASING: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground="black")]
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
BARS_MM = (20, 10, 5, 2, 1)
# Shares of the shown region: its margin, the side of what the inset magnifies, and the side of the inset.
MARGIN, MAGNIFIED, INSET = 0.08, 0.16, 0.32
# Corners for the inset, and how matplotlib calls them.
ANCHORS = {"upper right": "NE", "lower right": "SE", "upper left": "NW", "lower left": "SW"}
# The least side of the shown region, as a share of the slice's.
SMALLEST = 0.25


@dataclass(frozen=True)
class Slice:
    """The slice that all panels of a figure show.

    frame: uint8 (y, x).
    reference: bool (y, x) by structure.
    spacing: millimetres along (y, x).
    axes: letters of the directions in which y and x grow.
    number: its number in the volume.
    ignored: pixels that no score counts, bool (y, x); None without any.
    """

    frame: np.ndarray
    reference: Mapping[str, np.ndarray]
    spacing: tuple[float, float]
    axes: str
    number: int
    ignored: np.ndarray | None = None

    @property
    def pixel_aspect(self) -> float:
        """A pixel's height over its width."""
        return self.spacing[0] / self.spacing[1]


@dataclass(frozen=True)
class Panel:
    """One slice of one configuration.

    title: shown above the panel.
    predicted: masks, bool (y, x) by structure.
    prompts: on this slice.
    """

    title: str
    predicted: Mapping[str, np.ndarray]
    prompts: Sequence[ObjectPrompt]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: first and one past the last row and column."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def show(self, axes: Axes) -> None:
        """Limit `axes` to the rectangle, y downwards."""
        axes.set_xlim(self.columns[0] - 0.5, self.columns[1] - 0.5)
        axes.set_ylim(self.rows[1] - 0.5, self.rows[0] - 0.5)


def overlay(shown: Slice, panels: Sequence[Sequence[Panel]], colours: Mapping[str, str]) -> Figure:
    """Draw panels on one slice, as wide as a page: predicted masks filled, reference outlined, prompts marked.

    shown: the slice.
    panels: rows, of which a longer one is broken after three panels; a row can be shorter than others.
    colours: of each structure.

    All panels show the same region, around masks and prompts. Where predictions and reference differ most, over all
    panels together, each panel has an inset. The first panel has slice number, directions and a bar.
    """
    rows = [row[first : first + COLUMNS] for row in panels for first in range(0, len(row), COLUMNS)]
    every = [panel for row in panels for panel in row]
    columns = max(len(row) for row in rows)
    region = shown_window(shown, every)
    magnified = most_different(shown, every, region)
    height = (region.rows[1] - region.rows[0]) * shown.pixel_aspect / (region.columns[1] - region.columns[0])
    side = WIDTH / COLUMNS
    figure = Figure(figsize=(side * columns, (side * height + 0.4) * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    letters = iter(panel_letters(len(every)))
    corner = free_corner(shown, every, region, magnified) if magnified else ""
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, row, strict=False):
            draw_panel(axes, shown, panel, colours)
            region.show(axes)
            if magnified:
                draw_inset(axes, shown, panel, colours, magnified, corner)
            if len(every) > 1:
                axes.set_title(next(letters), loc="left", fontsize=9, fontweight="bold")
    draw_place(grid[0, 0], shown, region)
    for name in shown.reference:
        grid[0, 0].plot([], [], color=colours[name], linewidth=6, alpha=0.6, label=f"{name}: predicted")
    grid[0, 0].plot([], [], color="white", linewidth=1.2, label="reference")
    names = len(shown.reference) + 1
    figure.legend(
        loc="outside lower center",
        ncols=min(names, 1 + columns),
        fontsize=SMALL,
        facecolor="#555555",
        labelcolor="white",
    )
    return figure


def panel_letters(count: int) -> list[str]:
    """Return `count` letters of panels: a to z, then aa, ab and so on."""
    alphabet = string.ascii_lowercase
    return [alphabet[i] if i < 26 else alphabet[i // 26 - 1] + alphabet[i % 26] for i in range(count)]


def shown_window(shown: Slice, panels: Sequence[Panel]) -> Window:
    """Return the region around all masks and prompts, with a margin; the whole slice where there are none."""
    height, width = shown.frame.shape
    masks = [*shown.reference.values(), *(mask for panel in panels for mask in panel.predicted.values())]
    occupied = np.logical_or.reduce([np.zeros((height, width), dtype=bool), *masks])
    rows, columns = np.flatnonzero(occupied.any(axis=1)).tolist(), np.flatnonzero(occupied.any(axis=0)).tolist()
    for row, column in prompted_pixels((prompt for panel in panels for prompt in panel.prompts), height, width):
        rows.append(row)
        columns.append(column)
    if not rows:
        return Window((0, height), (0, width))
    margin_mm = MARGIN * max(np.ptp(rows) * shown.spacing[0], np.ptp(columns) * shown.spacing[1])
    down, right = (1 + round(margin_mm / size) for size in shown.spacing)
    return Window(_widened(rows, down, height), _widened(columns, right, width))


def _widened(places: Sequence[int], margin: int, size: int) -> tuple[int, int]:
    """First and one past the last place with a margin, at least a share of the slice."""
    first, stop = min(places) - margin, max(places) + 1 + margin
    lacking = max(0, round(SMALLEST * size) - (stop - first))
    first -= lacking // 2
    stop += lacking - lacking // 2
    return max(0, first), min(size, stop)


def most_different(shown: Slice, panels: Sequence[Panel], region: Window) -> Window | None:
    """Return the square within the region in which most pixels that scores count differ from the reference, summed over
    the panels; None where the reference shows nothing, or nothing differs."""
    wrong = np.zeros(shown.frame.shape)
    for panel in panels if any(mask.any() for mask in shown.reference.values()) else ():
        for name, mask in panel.predicted.items():
            wrong += mask ^ shown.reference[name]
    if shown.ignored is not None:
        wrong[shown.ignored] = 0
    if not wrong.any():
        return None
    shape = [stop - first for first, stop in (region.rows, region.columns)]
    side_mm = MAGNIFIED * max(size * step for size, step in zip(shape, shown.spacing, strict=True))
    sides = [min(size, max(2, round(side_mm / step))) for size, step in zip(shape, shown.spacing, strict=True)]
    inner = wrong[slice(*region.rows), slice(*region.columns)]
    high, wide = sides
    total = np.pad(inner.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    top, left = region.rows[0] + int(row), region.columns[0] + int(column)
    return Window((top, top + sides[0]), (left, left + sides[1]))


def free_corner(shown: Slice, panels: Sequence[Panel], region: Window, magnified: Window) -> str:
    """Return in which corner of the region the inset hides least, as `upper right`.

    First of all it leaves free what it magnifies, then slice number and bar, which are on the left, and then masks.
    """
    masks = [*shown.reference.values(), *(mask for panel in panels for mask in panel.predicted.values())]
    covered = np.sum(masks, axis=0)
    square = np.zeros(covered.shape, dtype=bool)
    square[slice(*magnified.rows), slice(*magnified.columns)] = True

    def hidden(corner: str) -> tuple[int, bool, int]:
        inset = inset_window(shown, region, magnified, corner)
        part = slice(*inset.rows), slice(*inset.columns)
        return int(square[part].sum()), corner.endswith("left"), int(covered[part].sum())

    return min(ANCHORS, key=hidden)


def inset_window(shown: Slice, region: Window, magnified: Window, corner: str) -> Window:
    """Return the pixels of the region that the inset in one of its corners lies over, those at its edges included."""
    (top, bottom), (left, right) = region.rows, region.columns
    aspect = shown.pixel_aspect * np.ptp(magnified.rows) / np.ptp(magnified.columns)  # height over width
    high, wide = INSET * (bottom - top) * shown.pixel_aspect, INSET * (right - left)
    high, wide = min(high, wide * aspect), min(wide, high / aspect)
    down, across = int(np.ceil(high / shown.pixel_aspect)), int(np.ceil(wide))
    rows = (top, top + down) if corner.startswith("upper") else (bottom - down, bottom)
    columns = (left, left + across) if corner.endswith("left") else (right - across, right)
    return Window(rows, columns)


def draw_panel(axes: Axes, shown: Slice, panel: Panel, colours: Mapping[str, str]) -> None:
    """Draw one panel into `axes`; the other arguments as in `overlay`."""
    axes.set_title(panel.title, fontsize=SMALL)
    draw_masks(axes, shown, panel, colours)
    draw_prompts(axes, panel.prompts, colours)


def draw_masks(axes: Axes, shown: Slice, panel: Panel, colours: Mapping[str, str]) -> None:
    """Draw frame, predicted masks and the reference's outlines, which are white between black, so that they can be
    seen on bright and dark."""
    axes.imshow(shown.frame, cmap="gray", vmin=0, vmax=255, aspect=shown.pixel_aspect)
    for name, mask in panel.predicted.items():
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = to_rgba(colours[name], 0.45)
        axes.imshow(layer, aspect=shown.pixel_aspect, interpolation="nearest")
    for mask in shown.reference.values():
        outline = PathPatch(border_path(mask), fill=False)
        outline.set(edgecolor="white", linewidth=0.8, capstyle="projecting", path_effects=CASING, zorder=2)
        axes.add_patch(outline)


def draw_inset(
    axes: Axes, shown: Slice, panel: Panel, colours: Mapping[str, str], magnified: Window, corner: str
) -> None:
    """Magnify a window of a panel in one of its corners, and frame the window. corner: as of `free_corner`."""
    x, y = (0.0 if side in corner else 1 - INSET for side in ("left", "lower"))
    inset = axes.inset_axes((x, y, INSET, INSET), xticks=[], yticks=[])
    draw_masks(inset, shown, panel, colours)
    magnified.show(inset)
    inset.set_anchor(ANCHORS[corner])
    for spine in inset.spines.values():
        spine.set(color="white", linewidth=0.8, visible=True)
    (top, bottom), (left, right) = magnified.rows, magnified.columns
    outline = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False)
    outline.set(edgecolor="white", linewidth=0.8, linestyle=":", path_effects=CASING)
    axes.add_patch(outline)


def draw_place(axes: Axes, shown: Slice, region: Window) -> None:
    """Write slice number and directions into a panel, and a bar of 20 mm, or less where that is more than two fifths,
    which leaves room for the letter in the middle."""
    down, right = shown.axes[0], shown.axes[1]
    text: dict[str, Any] = {
        "color": "white",
        "fontsize": SMALL,
        "path_effects": CASING,
        "transform": axes.transAxes,
        "zorder": 6,
    }
    axes.text(0.03, 0.97, f"slice {shown.number}", ha="left", va="top", **text)
    axes.text(0.5, 0.98, OPPOSITE[down], ha="center", va="top", **text)
    axes.text(0.5, 0.02, down, ha="center", va="bottom", **text)
    axes.text(0.02, 0.5, OPPOSITE[right], ha="left", va="center", **text)
    axes.text(0.98, 0.5, right, ha="right", va="center", **text)
    width_mm = (region.columns[1] - region.columns[0]) * shown.spacing[1]
    length = next((bar for bar in BARS_MM if bar <= 0.4 * width_mm), None)
    if length is not None:
        ends = (0.04, 0.04 + length / width_mm)
        axes.plot(ends, (0.04, 0.04), color="white", linewidth=2, path_effects=CASING, transform=axes.transAxes)
        axes.text(ends[0], 0.06, f"{length} mm", ha="left", va="bottom", **text)


def draw_prompts(axes: Axes, prompts: Sequence[ObjectPrompt], colours: Mapping[str, str]) -> None:
    """Mark the prompts of one slice in the colours of their objects."""
    for prompt in prompts:
        draw_box(axes, prompt, colours.get(prompt.structure, "white"))
    # A negative point of one object is the positive point of another, and a negative point of others. So that all marks
    # can be seen, negative points are drawn first, smaller from object to object, and positive points last.
    for order, prompt in enumerate(prompts):
        draw_points(axes, prompt, colours.get(prompt.structure, "white"), positive=False, size=260 / (1 + order))
    for prompt in prompts:
        draw_points(axes, prompt, colours.get(prompt.structure, "white"), positive=True, size=100)


def draw_points(axes: Axes, prompt: ObjectPrompt, colour: str, *, positive: bool, size: float) -> None:
    """Mark the positive points by stars, or the negative ones by crosses, in the colour of the object.

    size: area of a mark in square points, as matplotlib's `scatter` takes it.
    """
    points = prompt.points[prompt.labels == int(positive)]
    if not len(points):
        return
    if positive:
        axes.scatter(
            points[:, 0], points[:, 1], color=colour, marker="*", s=size, edgecolors="white", linewidths=0.9, zorder=4
        )
    else:
        axes.scatter(points[:, 0], points[:, 1], color=colour, marker="x", s=size, linewidths=1.5, zorder=3)


def draw_box(axes: Axes, prompt: ObjectPrompt, colour: str) -> None:
    """Outline the box, if there is one, around its outermost pixels, which belong to it."""
    if prompt.box is None:
        return
    left, top, right, bottom = prompt.box
    outline = Rectangle((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False)
    outline.set(edgecolor=colour, linewidth=1.2, path_effects=CASING)
    axes.add_patch(outline)


def png(figure: Figure, dots_per_inch: int = 130) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch)
    return stream.getvalue()
