"""Where a study's files lie, shard by shard, and what the pages about them have to know of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volprompt.config import Scheme
from volprompt.volumes import read_volume_table


@dataclass(frozen=True)
class ShardFiles:
    """Where a shard's volumes, prompts and masks lie; masks by experiment and model."""

    volumes: str
    prompts: str
    masks: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class StudyDesign:
    """What the report has to know of the configuration: label numbers by structure, schemes, and their experiments."""

    structures: Mapping[str, Sequence[int]]
    scored: Sequence[str]
    schemes: Mapping[str, Scheme]
    experiments: Mapping[str, tuple[Sequence[str], Sequence[str]]]


def converted_rows(shard: ShardFiles) -> dict[str, Any]:
    """The rows of the shard's volume table by volume, without those that could not be converted."""
    table = read_volume_table(shard.volumes)
    return {row.volume: row for row in table[table["status"] == "ok"].itertuples()}
