"""Prompts and masks drawn on a frame, as in the paper's Figure 2."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from volprompt.prompts.schemes import ObjectPrompt

PANEL_INCHES = 3.3


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


def overlay(
    frame: np.ndarray,
    reference: Mapping[str, np.ndarray],
    panels: Sequence[Sequence[Panel]],
    colours: Mapping[str, str],
    pixel_aspect: float,
) -> Figure:
    """Draw rows of panels on one frame: predicted masks filled, reference outlined, points and boxes marked.

    frame: uint8 (y, x).
    reference: bool (y, x) by structure.
    panels: the rows; a row can be shorter than others.
    colours: of each structure.
    pixel_aspect: a pixel's height over its width.
    """
    columns = max(len(row) for row in panels)
    height = frame.shape[0] * pixel_aspect / frame.shape[1]
    figure = Figure(
        figsize=(PANEL_INCHES * columns, (PANEL_INCHES * height + 0.4) * len(panels) + 0.4), layout="constrained"
    )
    grid = figure.subplots(len(panels), columns, squeeze=False)
    for axes_row, row in zip(grid, panels, strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, row, strict=False):
            draw_panel(axes, frame, reference, panel, colours, pixel_aspect)
    for name in reference:
        grid[0, 0].plot([], [], color=colours[name], linewidth=6, alpha=0.6, label=f"{name}: predicted")
    grid[0, 0].plot([], [], color="white", linewidth=1.2, label="reference")
    figure.legend(
        loc="outside lower center", ncols=len(reference) + 1, fontsize=8, facecolor="#555555", labelcolor="white"
    )
    return figure


def draw_panel(
    axes: Axes,
    frame: np.ndarray,
    reference: Mapping[str, np.ndarray],
    panel: Panel,
    colours: Mapping[str, str],
    pixel_aspect: float,
) -> None:
    """Draw one panel into `axes`; the other arguments as in `overlay`."""
    axes.imshow(frame, cmap="gray", vmin=0, vmax=255, aspect=pixel_aspect)
    axes.set_title(panel.title, fontsize=8)
    for name, mask in panel.predicted.items():
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = to_rgba(colours[name], 0.45)
        axes.imshow(layer, aspect=pixel_aspect, interpolation="nearest")
    for mask in reference.values():
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
    draw_prompts(axes, panel.prompts, colours)


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
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, edgecolor=colour, linewidth=1.2
        )
    )


def png(figure: Figure, dots_per_inch: int = 130) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch)
    return stream.getvalue()
