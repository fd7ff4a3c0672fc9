"""The report: one HTML page that opens offline, with the median table and the masks on an example volume."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from volprompt import figures, tables
from volprompt.config import Scheme
from volprompt.files import write_text
from volprompt.logs import logger
from volprompt.masks import mask_path, read_mask
from volprompt.prompts import read_prompts
from volprompt.schemes import ObjectPrompt, middle_slice, scheme_prompts
from volprompt.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.volumes import grid_of_row, read_frames, read_reference, structure_mask


def write_report(
    *,
    aggregated: str | Path,
    shards: Sequence[ShardFiles],
    design: StudyDesign,
    title: str,
    example: str | None,
    page: str | Path,
) -> None:
    """Write the report.

    aggregated: folder of the study's tables; example: the volume of the overlay figures, or None for the volume whose
    combined Dice, averaged over the configurations, is the median.
    """
    aggregated = Path(aggregated)
    scores = pd.read_parquet(aggregated / "scores.parquet")
    medians = pd.read_csv(aggregated / "medians.csv").astype({"parameters": "Int64"})
    head, body = tables.layout(medians, design.scored, lambda text: f"*{text}")
    chosen = example or median_volume(scores)
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html.j2")
    runs = tables.read_runs([folder for shard in shards for folder in shard.masks.values()])
    html = template.render(
        title=title,
        head=head,
        body=body,
        published=tables.published(design.scored),
        published_note=tables.PUBLISHED_NOTE,
        volumes=scores["volume"].nunique(),
        example=chosen,
        overlays=overlays(chosen, shards, design) if chosen else [],
        costs=_records(aggregated / "cost.csv"),
        failures=_records(aggregated / "failures.csv"),
        schemes={name: _flow(scheme) for name, scheme in design.schemes.items()},
        software=software(runs),
        checkpoints=runs[["model", "checkpoint_sha256"]].dropna().drop_duplicates().to_dict("records"),
    )
    write_text(page, html)
    logger.info("The report is %s", page)


def median_volume(scores: pd.DataFrame) -> str | None:
    """The volume in the middle of the ranking by combined Dice, averaged over the configurations."""
    combined = scores[(scores["structure"] == "combined") & (scores["status"] == "ok")]
    ranked = combined.groupby("volume")["dice"].mean().dropna().sort_values(kind="stable")
    return str(ranked.index[(len(ranked) - 1) // 2]) if len(ranked) else None


def overlays(volume: str, shards: Sequence[ShardFiles], design: StudyDesign) -> list[dict[str, Any]]:
    """For each experiment a figure of one slice of `volume`: models in rows, schemes in columns, as inline PNG."""
    shard = next((shard for shard in shards if volume in converted_rows(shard)), None)
    if shard is None:
        return []
    example = Example(volume, shard, design)
    made = []
    for experiment, (models, schemes) in design.experiments.items():
        panels = [[example.panel(experiment, model, scheme) for scheme in schemes] for model in models]
        figure = figures.overlay(example.frame, example.reference, panels, example.pixel_aspect)
        data = base64.b64encode(figures.png(figure)).decode()
        made.append({"experiment": experiment, "slice": example.slice, "png": data})
    return made


class Example:
    """The slice of a volume that is shown, with its reference and each configuration's prompts and masks."""

    def __init__(self, volume: str, shard: ShardFiles, design: StudyDesign) -> None:
        self.volume = volume
        self.shard = shard
        self.design = design
        self.row = converted_rows(shard)[volume]
        self.grid = grid_of_row(self.row)
        self.depth = int(self.row.shape[0])
        table = read_prompts(shard.prompts)
        self.table = table[table["volume"] == volume]
        self.given = {name: self._prompts(scheme) for name, scheme in design.schemes.items()}
        labels = read_reference(shard.volumes, volume)
        masks = {} if labels is None else {n: structure_mask(labels, design.structures[n]) for n in design.scored}
        self.slice = self._shown_slice(masks)
        self.frame = read_frames(shard.volumes, volume)[self.slice]
        empty = np.zeros(self.frame.shape, dtype=bool)
        self.reference = {name: masks[name][self.slice] if masks else empty for name in design.scored}
        _, height, width = self.grid.spacing
        self.pixel_aspect = height / width

    def panel(self, experiment: str, model: str, scheme: str) -> figures.Panel:
        """The panel of one configuration; without masks where the volume failed there."""
        folder = self.shard.masks[experiment, model]
        predicted = {}
        for name in self.design.scored:
            path = mask_path(folder, scheme, self.volume, name)
            if path.exists():
                predicted[name] = read_mask(path, self.grid)[self.slice]
        prompts = [prompt for prompt in self.given[scheme] if prompt.slice == self.slice]
        return figures.Panel(f"{model}\n{scheme}" + ("" if predicted else " (failed)"), predicted, prompts)

    def _prompts(self, scheme: Scheme) -> list[ObjectPrompt]:
        try:
            return scheme_prompts(scheme, self.table, list(self.design.structures), self.design.scored, self.depth)
        except Exception as error:  # the volume failed under this scheme; the panel says so
            logger.info("%s: %s", self.volume, error)
            return []

    def _shown_slice(self, masks: Mapping[str, np.ndarray]) -> int:
        """The prompted slice of a video scheme, else the slice nearest the middle that shows every structure."""
        for name, scheme in self.design.schemes.items():
            if scheme.predictor == "video" and self.given[name]:
                return self.given[name][0].slice
        shown = [i for i in range(self.depth) if masks and all(mask[i].any() for mask in masks.values())]
        middle = middle_slice(self.depth)
        return min(shown, key=lambda index: abs(index - middle), default=middle)


def _flow(scheme: Scheme) -> str:
    """A scheme's definition as it would stand in the configuration."""
    settings = scheme.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=1000)).strip()


def software(runs: pd.DataFrame) -> list[str]:
    """The distinct sets of package versions that made the masks."""
    found = runs["versions"].dropna().unique()
    return [", ".join(f"{name} {number}" for name, number in json.loads(text).items()) for text in found]


def _records(path: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(path)
    return table.astype(object).where(table.notna(), "").to_dict("records")


def group_by_shard(volumes: Sequence[str], prompts: Sequence[str], masks: Sequence[str]) -> list[ShardFiles]:
    """Group the folders of volumes, prompt tables and mask folders (.../experiment/model/shard) by their shard."""
    found = []
    for folder, table in zip(volumes, prompts, strict=True):
        own = [Path(path) for path in masks if Path(path).name == Path(folder).name]
        by_job = {(path.parent.parent.name, path.parent.name): str(path) for path in own}
        found.append(ShardFiles(folder, table, by_job))
    return found
