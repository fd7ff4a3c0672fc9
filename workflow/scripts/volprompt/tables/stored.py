"""Tables as files: reading those that the jobs wrote, and reading and writing those of the whole study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.files import atomic, table_metadata

NAMES = ("volume", "model", "scheme", "other_model", "other_scheme", "structure")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of the study. Names are text, even if they look like a number or say NA."""
    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def table_origin() -> dict[str, str]:
    """Return what made a table of the study: the tool, its version and the method version."""
    return {"tool": "volprompt", "version": __version__, "aggregate_method_version": str(METHOD_VERSION["aggregate"])}


def score_metadata(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return the metadata of all score tables and of this stage; several values of one key are joined by `; `."""
    values_of: dict[str, list[str]] = {}
    for path in paths:
        for key, value in table_metadata(path).items():
            values_of.setdefault(key, []).append(value)
    return {key: "; ".join(dict.fromkeys(values)) for key, values in values_of.items()} | table_origin()


def read_tracked_slices(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read the rows of the slice tables that have a distance to a prompted slice: those of video schemes."""
    columns = ["model", "scheme", "volume", "structure", "distance", "intersection", "predicted", "reference"]
    parts = [pd.read_parquet(path, columns=columns) for path in paths]
    tracked = [part[part["distance"].notna()] for part in parts]
    filled = [part for part in tracked if len(part)] or tracked[:1]
    return pd.concat(filled, ignore_index=True)


def read_runs(masks: Sequence[str | Path]) -> pd.DataFrame:
    """Read the run tables of all jobs into one, without jobs that have no volume."""
    parts = [pd.read_parquet(Path(folder) / "run.parquet") for folder in masks]
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).reindex(columns=_run_columns(filled))


def _run_columns(parts: Sequence[pd.DataFrame]) -> list[str]:
    expected = ["model", "scheme", "volume", "status", "stage", "reason", "parameters", "prompts", "seconds"]
    expected += ["seconds_encode", "seconds_prompt", "slices_per_second", "peak_memory_mb", "peak_gpu_memory_mb"]
    expected += ["device", "precision", "checkpoint_sha256", "versions"]
    return list(dict.fromkeys([*expected, *(column for part in parts for column in part.columns)]))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
