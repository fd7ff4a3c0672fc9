"""The page's figures: every plot that has rows, and the overlays."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from volprompt.report import agreement_plot, correction_plots, decay_plot, drawing, plots
from volprompt.report.overlays import overlay_of, overlays, read_example
from volprompt.report.plot_style import Look, Models, Pair, configurations_of, inline_svg, write_figure
from volprompt.report.shards import ShardFiles, StudyDesign
from volprompt.report.study_tables import StudyTables


class Gallery:
    """The page's figures by name: written beside the page, and as elements of it."""

    def __init__(self, folder: Path, page_folder: Path, stamp: str, formats: Sequence[str]) -> None:
        self.folder = folder
        self.formats = ("svg", *formats)
        self.beside = os.path.relpath(folder, page_folder)
        self.stamp = stamp
        self.elements: dict[str, Markup] = {}
        # Of figures whose points open volumes: where their axes are, as shares of the figure, and what they show.
        self.points: dict[str, dict[str, Any]] = {}

    def add(self, name: str, figure: Any, label: str, raster: bool = False) -> None:
        """Write a figure and keep it for the page.

        name: of its files.
        figure: a matplotlib figure.
        label: what it shows, for screen readers.
        raster: whether the page gets pixels in place of an SVG element.
        """
        drawn = write_figure(figure, self.folder, name, self.stamp, self.formats[1:])
        if raster:
            picture = base64.b64encode(drawing.png(figure)).decode()
            element = f'<img alt="{escape(label)}" src="data:image/png;base64,{picture}">'
        else:
            element = inline_svg(drawn, str(escape(label)))
        self.elements[name] = Markup(element)

    def add_opening(self, name: str, figure: Any, label: str, rows: Sequence[Pair], structure: str) -> None:
        """Write a figure of one axes whose points are volumes, which the page opens; rows: configurations, top down."""
        self.add(name, figure, label)
        (axes,) = figure.axes
        place = axes.get_position()
        self.points[name] = {
            "box": [round(value, 5) for value in (place.x0, 1 - place.y1, place.width, place.height)],
            "x": [float(value) for value in axes.get_xlim()],
            "y": [float(value) for value in axes.get_ylim()],
            "rows": [list(pair) for pair in rows],
            "structure": structure,
        }

    def __contains__(self, name: str) -> bool:
        return name in self.elements

    def starting(self, prefix: str) -> list[str]:
        """Return the names of figures with this prefix, in the order in which they were added."""
        return [name for name in self.elements if name.startswith(prefix)]


def draw_plots(gallery: Gallery, tables: StudyTables, design: StudyDesign) -> None:
    """Draw every plot whose table has rows."""
    order = configurations_of(tables.medians)
    averaged = [scheme for _, scheme in configurations_of(tables["ranks"])] if len(tables["ranks"]) else []
    schemes = Look(list(dict.fromkeys([*(scheme for _, scheme in order), *averaged])))
    models = Models(design.used_models)
    done = tables.scores[tables.scores["status"] == "ok"]
    for name in ["combined", *design.scored] if len(done) else []:
        figure = plots.distributions(done, name, order, schemes)
        label = f"Dice of every volume by configuration, {name}"
        gallery.add_opening(f"distributions_{name}", figure, label, order, name)
    for kind in tables["comparisons"]["kind"].unique() if len(tables["comparisons"]) else []:
        label = f"Median paired differences of combined Dice between {kind}, with intervals"
        gallery.add(f"differences_{kind}", plots.differences(tables["comparisons"], kind), label)
    if len(tables["decay"]):
        label = "Pooled Dice by distance from the prompted slice, by structure, scheme and model"
        gallery.add("decay", decay_plot.decay(tables["decay"], design.scored, schemes, models), label)
    if len(tables["agreement"]) and tables["agreement"]["n"].any():
        label = "Difference of predicted and reference volume against their mean, by configuration"
        structures = {name: design.colours[name] for name in design.scored}
        figure = agreement_plot.agreement(tables.scores, tables["agreement"], order, structures)
        gallery.add("agreement", figure, label)
    if len(tables["propagation"]) and tables["propagation"]["dice"].notna().any():
        label = "Combined Dice in full, on slices with the structure and on the prompted slice, and over-propagation"
        gallery.add("propagation", plots.propagation(tables["propagation"], order), label)
    corrected = tables["corrections"]
    if len(corrected) and corrected.loc[corrected["structure"] == "combined", "dice"].notna().any():
        label = "Median combined Dice by rounds of correction clicks, and by prompts given in all"
        gallery.add("corrections", correction_plots.corrections(corrected, schemes, models), label)
    if len(tables["confidence"]):
        figure = correction_plots.confidence(tables.scores, tables["confidence"], order)
        gallery.add("confidence", figure, "Combined Dice of every volume by its predicted IoU")
    if len(tables["ranks"]) and tables["ranks"]["rank"].notna().any():
        label = "Ranks of the configurations with bootstrap intervals"
        gallery.add("ranks", plots.ranks(tables["ranks"], schemes), label)
    for name, column in (("cost", "seconds_per_volume"), ("effort", "human_prompts_per_volume")):
        if "dice" in tables["cost"] and tables["cost"][["dice", column]].notna().all(axis=1).any():
            label = f"Median combined Dice against {plots.COSTS[column][0].lower()}{plots.COSTS[column][1:]}"
            gallery.add(name, plots.cost(tables["cost"], schemes, models, column), label)
    for run, steps in design.training_runs.items():
        if tables.medians.loc[tables.medians["model"].isin(list(steps)), "combined"].notna().any():
            figure = plots.training(tables.medians, steps, schemes)
            gallery.add(f"training_{run}", figure, f"Median combined Dice against training step, {run}")


def draw_overlays(
    gallery: Gallery,
    volume: str | None,
    shards: Sequence[ShardFiles],
    design: StudyDesign,
    best: tuple[str, str] | None,
) -> None:
    """Draw prompts and masks of the best configuration (model, scheme), and of each experiment, on a slice of `volume`;
    nothing without a volume."""
    example = read_example(volume, shards, design) if volume else None
    if example is None:
        return
    if best is not None:
        label = f"Prompts and masks of {' with '.join(best)} on slice {example.slice} of volume {volume}"
        gallery.add("best", overlay_of(example, *best), label, raster=True)
    for overlay in overlays(example):
        label = f"Masks of experiment {overlay.experiment} on slice {overlay.slice} of volume {volume}"
        gallery.add(f"overlay_{overlay.experiment}", overlay.figure, label, raster=True)
