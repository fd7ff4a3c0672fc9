"""The page's figures: every plot that has rows, and the overlays."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from volprompt.report import drawing, plots
from volprompt.report.overlays import overlays
from volprompt.report.plot_style import Look, configurations_of, inline_svg, write_figure
from volprompt.report.shards import ShardFiles, StudyDesign
from volprompt.report.study_tables import StudyTables


class Gallery:
    """The page's figures by name: written beside the page, and as elements of it."""

    def __init__(self, folder: Path, page_folder: Path, stamp: str) -> None:
        self.folder = folder
        self.beside = os.path.relpath(folder, page_folder)
        self.stamp = stamp
        self.elements: dict[str, Markup] = {}

    def add(self, name: str, figure: Any, label: str, raster: bool = False) -> None:
        """Write a figure and keep it for the page; label: what it shows, read out by screen readers."""
        drawn = write_figure(figure, self.folder, name, self.stamp)
        if raster:
            picture = base64.b64encode(drawing.png(figure)).decode()
            element = f'<img alt="{escape(label)}" src="data:image/png;base64,{picture}">'
        else:
            element = inline_svg(drawn, str(escape(label)))
        self.elements[name] = Markup(element)

    def __contains__(self, name: str) -> bool:
        return name in self.elements

    def starting(self, prefix: str) -> list[str]:
        """The figures whose names start like this, in the order in which they were added."""
        return [name for name in self.elements if name.startswith(prefix)]


def draw_plots(gallery: Gallery, found: StudyTables, design: StudyDesign) -> None:
    """Every plot whose table has rows."""
    order = configurations_of(found.medians)
    schemes = Look(list(dict.fromkeys(scheme for _, scheme in order)))
    done = found.scores[found.scores["status"] == "ok"]
    for name in ["combined", *design.scored] if len(done) else []:
        figure = plots.distributions(done, name, order, schemes)
        gallery.add(f"distributions_{name}", figure, f"Dice of every volume by configuration, {name}")
    for kind in found.comparisons["kind"].unique() if len(found.comparisons) else []:
        label = f"Median paired differences of combined Dice between {kind}, with intervals"
        gallery.add(f"differences_{kind}", plots.differences(found.comparisons, kind), label)
    if len(found.decay):
        label = "Pooled Dice by distance from the prompted slice, by structure, scheme and model"
        gallery.add("decay", plots.decay(found.decay, design.scored), label)
    if len(found.propagation):
        label = "Combined Dice in full, on slices with the structure and on the prompted slice, and over-propagation"
        gallery.add("propagation", plots.propagation(found.propagation, order), label)
    if len(found.ranks) and found.ranks["rank"].notna().any():
        gallery.add("ranks", plots.ranks(found.ranks, schemes), "Ranks of the configurations with bootstrap intervals")
    if "dice" in found.cost and found.cost[["dice", "seconds_per_volume"]].notna().all(axis=1).any():
        gallery.add("cost", plots.cost(found.cost, schemes), "Median combined Dice against seconds per volume")
    for run, steps in design.training_runs.items():
        if found.medians.loc[found.medians["model"].isin(list(steps)), "combined"].notna().any():
            figure = plots.training(found.medians, steps, schemes)
            gallery.add(f"training_{run}", figure, f"Median combined Dice against training step, {run}")


def draw_overlays(gallery: Gallery, volume: str | None, shards: Sequence[ShardFiles], design: StudyDesign) -> None:
    """Prompts and masks of each experiment on a slice of `volume`."""
    for overlay in overlays(volume, shards, design) if volume else []:
        label = f"Masks of experiment {overlay.experiment} on slice {overlay.slice} of volume {volume}"
        gallery.add(f"overlay_{overlay.experiment}", overlay.figure, label, raster=True)
