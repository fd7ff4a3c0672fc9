"""Tables as files: those that the jobs wrote, and the study's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.files import atomic, table_metadata

NAMES = ("volume", "model", "scheme", "other_model", "other_scheme", "structure")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of this stage: names are text, also those that look like a number or say NA."""
    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def own_metadata() -> dict[str, str]:
    """What made a table of this stage."""
    return {"tool": "volprompt", "version": __version__, "aggregate_method_version": str(METHOD_VERSION["aggregate"])}


def score_metadata(paths: Sequence[str | Path]) -> dict[str, str]:
    """The metadata of all score tables beside this stage's own; where they differ, every value, in order, by `; `."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for key, value in table_metadata(path).items():
            found.setdefault(key, []).append(value)
    return {key: "; ".join(dict.fromkeys(values)) for key, values in found.items()} | own_metadata()


def read_tracked_slices(paths: Sequence[str | Path]) -> pd.DataFrame:
    """The rows of the slice tables that have a distance to a prompted slice: those of video schemes."""
    columns = ["model", "scheme", "volume", "structure", "distance", "intersection", "predicted", "reference"]
    parts = [pd.read_parquet(path, columns=columns) for path in paths]
    tracked = [part[part["distance"].notna()] for part in parts]
    filled = [part for part in tracked if len(part)] or tracked[:1]
    return pd.concat(filled, ignore_index=True)


def read_runs(masks: Sequence[str | Path]) -> pd.DataFrame:
    """The run tables of all jobs as one; jobs without any volume left out."""
    parts = [pd.read_parquet(Path(folder) / "run.parquet") for folder in masks]
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).reindex(columns=_run_columns(filled))


def _run_columns(parts: Sequence[pd.DataFrame]) -> list[str]:
    wanted = ["model", "scheme", "volume", "status", "stage", "reason", "parameters", "prompts", "seconds"]
    wanted += ["seconds_encode", "seconds_prompt", "slices_per_second", "peak_memory_mb", "peak_gpu_memory_mb"]
    wanted += ["device", "precision", "checkpoint_sha256", "versions"]
    return list(dict.fromkeys([*wanted, *(column for part in parts for column in part.columns)]))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
