"""Where the files of a study are, shard by shard, and what the report needs of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from volprompt.palette import structure_colours
from volprompt.prompts.available import frame_grid
from volprompt.prompts.schemes import ObjectPrompt, scheme_prompts
from volprompt.settings.config import Frames, Inference, Scores
from volprompt.settings.schemes import Scheme
from volprompt.volumes.converted import read_volume_table
from volprompt.volumes.grid import Grid

# Sections of the configuration that the report reads whole.
SECTIONS = {"frames": Frames, "inference": Inference, "scores": Scores}


@dataclass(frozen=True)
class ShardFiles:
    """Where the files of a shard are.

    volumes: folder of the converted volumes.
    prompts: the prompt table.
    masks: folders by experiment and model.
    rounds: tables of the scores of each round of corrections, by experiment and model.
    """

    volumes: str
    prompts: str
    masks: Mapping[tuple[str, str], str]
    rounds: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyDesign:
    """What the report needs of the configuration.

    labels: label numbers of all structures, in the configuration's order.
    scored: names of the scored structures, in order.
    schemes: by name.
    experiments: models and schemes of each.
    ignored: label numbers of voxels that no score counts.
    sources: image and reference of each volume as they are shown; by default as they were converted.
    groups: the group (subject) of each volume that has one.
    models: what identifies each (family, architecture, digest).
    frames, inference, scores: sections of the configuration.
    preset: its settings (key, preset, used); none without a preset.
    reproduces: whether the study is to reproduce the paper.
    results: its folder of results, as it is shown; by default that of `ShardFiles`.
    training_runs: for each glob of checkpoints its models with their training steps.
    configuration: its digest.
    """

    labels: Mapping[str, Sequence[int]]
    scored: Sequence[str]
    schemes: Mapping[str, Scheme]
    experiments: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    ignored: Sequence[int] = ()
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    frames: Frames = field(default_factory=Frames)
    inference: Inference = field(default_factory=Inference)
    scores: Scores = field(default_factory=Scores)
    preset: Sequence[tuple[str, Any, Any]] = ()
    reproduces: bool = False
    results: str = ""
    training_runs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    configuration: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> StudyDesign:
        """The design that a rule hands over: schemes and sections as dictionaries, everything else as it is here."""
        sections = {name: kind(**plain[name]) for name, kind in SECTIONS.items() if name in plain}
        schemes = {name: Scheme(**scheme) for name, scheme in plain["schemes"].items()}
        return cls(**{**plain, **sections, "schemes": schemes})

    @property
    def used_models(self) -> list[str]:
        """Names of the models of all experiments, each once."""
        return list(dict.fromkeys(model for models, _ in self.experiments.values() for model in models))

    @property
    def used_schemes(self) -> list[str]:
        """Names of the schemes of all experiments, each once."""
        return list(dict.fromkeys(scheme for _, schemes in self.experiments.values() for scheme in schemes))

    @property
    def colours(self) -> dict[str, str]:
        """Colours by structure."""
        return structure_colours(self.labels)

    def prompts(self, scheme: str, table: pd.DataFrame, grid: Grid) -> list[ObjectPrompt]:
        """Return a scheme's prompts on a volume. table: the volume's rows of the prompt table."""
        depth = grid.frames_shape[0]
        asked = scheme_prompts(self.schemes[scheme], table, list(self.labels), self.scored, depth, frame_grid(grid))
        return asked.prompts


def converted_rows(shard: ShardFiles) -> dict[str, Any]:
    """Return the rows of the shard's volume table by volume, without those that could not be converted."""
    table = read_volume_table(shard.volumes)
    return {row.volume: row for row in table[table["status"] == "ok"].itertuples()}


def group_by_shard(
    volumes: Sequence[str], prompts: Sequence[str], masks: Sequence[str], rounds: Sequence[str] = ()
) -> list[ShardFiles]:
    """Group a study's files by their shard.

    volumes: folders of the converted volumes.
    prompts: prompt tables, in the order of `volumes`.
    masks: folders (.../experiment/model/shard).
    rounds: tables of the scores of rounds (.../experiment/model/shard_rounds.parquet).
    """
    shards = []
    for folder, table in zip(volumes, prompts, strict=True):
        shard = Path(folder).name
        mask_folders = [Path(path) for path in masks if Path(path).name == shard]
        round_tables = [Path(path) for path in rounds if Path(path).name == f"{shard}_rounds.parquet"]
        shards.append(ShardFiles(folder, table, _by_job(mask_folders), _by_job(round_tables)))
    return shards


def _by_job(paths: Sequence[Path]) -> dict[tuple[str, str], str]:
    """Return paths (.../experiment/model/name) by experiment and model."""
    return {(path.parent.parent.name, path.parent.name): str(path) for path in paths}
