"""Prompts and masks on one slice of an example volume: one figure per experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from volprompt.prompts.candidates import read_prompts
from volprompt.prompts.schemes import middle_slice
from volprompt.report import drawing
from volprompt.report.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.segmentation.masks import mask_path, read_mask
from volprompt.volumes.converted import grid_of_row, read_frames, read_reference
from volprompt.volumes.references import structure_mask


@dataclass(frozen=True)
class Overlay:
    """The figure of an experiment: models in rows, schemes in columns, all on slice `slice`."""

    experiment: str
    slice: int
    figure: Figure


def median_volume(scores: pd.DataFrame) -> str | None:
    """Return the volume in the middle of the ranking by combined Dice, averaged over the configurations."""
    combined = scores[(scores["structure"] == "combined") & (scores["status"] == "ok")]
    ranked = combined.groupby("volume")["dice"].mean().dropna().sort_values(kind="stable")
    return str(ranked.index[(len(ranked) - 1) // 2]) if len(ranked) else None


def read_example(volume: str, shards: Sequence[ShardFiles], design: StudyDesign) -> Example | None:
    """Read a slice of `volume`; None if the volume was not converted."""
    for shard in shards:
        row = converted_rows(shard).get(volume)
        if row is not None:
            return Example(row, shard, design)
    return None


def overlays(example: Example) -> Iterator[Overlay]:
    """Draw the slice, a figure per experiment."""
    design = example.design
    for experiment, (models, schemes) in design.experiments.items():
        panels = [[example.panel(experiment, model, scheme) for scheme in schemes] for model in models]
        yield Overlay(experiment, example.slice, drawing.overlay(example.shown, panels, design.colours))


def overlay_of(example: Example, model: str, scheme: str) -> Figure:
    """Draw the slice under one configuration."""
    experiments = example.design.experiments.items()
    experiment = next(name for name, (models, schemes) in experiments if model in models and scheme in schemes)
    return drawing.overlay(example.shown, [[example.panel(experiment, model, scheme)]], example.design.colours)


class Example:
    """The slice of a volume that is shown, with its reference and each configuration's prompts and masks."""

    def __init__(self, row: Any, shard: ShardFiles, design: StudyDesign) -> None:
        """Read the slice. row: the volume's row of the shard's volume table."""
        self.volume = volume = row.volume
        self.shard = shard
        self.design = design
        self.grid = grid_of_row(row)
        self.depth = int(row.shape[0])
        table = read_prompts(shard.prompts)
        self.table = table[table["volume"] == volume]
        self.prompts = {name: design.prompts(name, self.table, self.grid) for name in design.schemes}
        label_map = read_reference(shard.volumes, volume)
        masks = {} if label_map is None else {n: structure_mask(label_map, design.labels[n]) for n in design.scored}
        self.slice = self._choose_slice(masks)
        frame = read_frames(shard.volumes, volume)[self.slice]
        empty = np.zeros(frame.shape, dtype=bool)
        reference = {name: masks[name][self.slice] if masks else empty for name in design.scored}
        ignored = None
        if label_map is not None and design.ignored:
            ignored = structure_mask(label_map[self.slice], design.ignored)
        _, height, width = self.grid.spacing
        self.shown = drawing.Slice(frame, reference, (height, width), self.grid.axes[1:], self.slice, ignored)

    def panel(self, experiment: str, model: str, scheme: str) -> drawing.Panel:
        """Return the panel of a configuration; without masks if the volume failed under it."""
        folder = self.shard.masks[experiment, model]
        predicted = {}
        for name in self.design.scored:
            path = mask_path(folder, scheme, self.volume, name)
            if path.exists():
                predicted[name] = read_mask(path, self.grid)[self.slice]
        prompts = [prompt for prompt in self.prompts[scheme] if prompt.slice == self.slice]
        return drawing.Panel(f"{model}\n{scheme}" + ("" if predicted else " (failed)"), predicted, prompts)

    def _choose_slice(self, masks: Mapping[str, np.ndarray]) -> int:
        """Return the slice a scheme carries masks on from, or else the one nearest the middle with all structures."""
        for name, scheme in self.design.schemes.items():
            if not scheme.prompts_every_slice and self.prompts[name]:
                return self.prompts[name][0].slice
        complete = [i for i in range(self.depth) if masks and all(mask[i].any() for mask in masks.values())]
        middle = middle_slice(self.depth)
        return min(complete, key=lambda index: abs(index - middle), default=middle)
