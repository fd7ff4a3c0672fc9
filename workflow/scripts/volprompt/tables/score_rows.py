"""The score table of the whole study, with what statistics software needs beside each score."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from volprompt.columns import JOINED_COLUMNS, SCORED_TOGETHER
from volprompt.tables.bootstrap import subjects_of
from volprompt.tables.design import TableDesign


def with_study_columns(
    scores: pd.DataFrame, runs: pd.DataFrame, converted: pd.DataFrame, design: TableDesign
) -> pd.DataFrame:
    """Add JOINED_COLUMNS and the covariates to the score table.

    scores: the score tables of all jobs.
    runs: their run tables.
    converted: the volume tables of all shards.
    design: what of the configuration reaches the tables.

    `group` is the volume itself if the sample sheet gives it none. `prompts` are those of the structure, or of all
    structures in the rows that are over them.
    """
    keys = ["model", "scheme", "volume"]
    of_run = runs[[*keys, "parameters", "prompts", "prompts_of", "clicks_of", "human_prompts", "seconds"]]
    table = scores.merge(of_run, "left", keys, validate="many_to_one")
    given = table[["structure", "prompts", "prompts_of", "clicks_of"]]
    of_structure = [_prompts(*row) for row in given.itertuples(index=False)]
    spacing = dict(zip(converted["volume"], converted["spacing"], strict=True))
    along = [_spacing(spacing.get(volume)) for volume in table["volume"]]
    table = table.assign(
        group=subjects_of(list(table["volume"]), design.groups),
        prompts=pd.array(of_structure, "Float64").astype("Int64"),
        parameters=table["parameters"].astype("Int64"),
        human_prompts=table["human_prompts"].astype("Int64"),
        **{f"spacing_{axis}_mm": [mm[place] for mm in along] for place, axis in enumerate(("slice", "y", "x"))},
    )
    covariates = {name: table["volume"].map(texts).astype("string") for name, texts in design.covariates.items()}
    return table.assign(**covariates)[[*scores.columns, *JOINED_COLUMNS, *covariates]]


def _prompts(structure: str, prompts: Any, *given: Any) -> float:
    """Return the number of prompts of a structure, or of all in rows over all structures; NaN without masks.

    prompts: of all structures; given: numbers by structure, as JSON.
    """
    if structure in SCORED_TOGETHER or pd.isna(prompts):
        return float(prompts)
    return float(sum(json.loads(text).get(structure, 0) for text in given if isinstance(text, str)))


def _spacing(mm: Any) -> tuple[float, float, float]:
    """Return millimetres along (slice, y, x), NaN for a volume that could not be converted."""
    return tuple(map(float, mm)) if mm is not None and len(mm) == 3 else (float("nan"),) * 3  # type: ignore[return-value]
