"""Tables as files: those that the jobs wrote, and the study's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.files import atomic, read_table, table_metadata

# The schemes of each experiment.
Experiments = Mapping[str, Sequence[str]]
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


def job_name(table: str | Path) -> str:
    """Experiment, model and shard of a job, from the path of its score table: `sam1/vit_b/003`."""
    path = Path(table)
    return str(path.relative_to(path.parents[2]).with_suffix(""))


def wanted_rows(table: pd.DataFrame, job: str | Path, experiments: Experiments | None) -> pd.DataFrame:
    """The rows of a job's table whose scheme its experiment still has, with the schemes of a volume in its order.

    job: the table's file or folder, `.../experiment/model/shard`; experiments: schemes by experiment; None takes all.
    """
    if experiments is None:
        return table
    place = {scheme: index for index, scheme in enumerate(experiments[Path(job).parent.parent.name])}
    table = table[table["scheme"].isin(list(place))]
    volumes = {volume: index for index, volume in enumerate(table["volume"].drop_duplicates())}
    order = table["volume"].map(volumes) * len(place) + table["scheme"].map(place)
    return table.loc[order.sort_values(kind="stable").index]


def read_scores(paths: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """The score tables of all jobs as one; experiments as in `wanted_rows`."""
    return pd.concat([wanted_rows(read_table(path), path, experiments) for path in paths], ignore_index=True)


def read_tracked_slices(paths: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """The rows of the slice tables that have a distance to a prompted slice: those of video schemes.

    experiments as in `wanted_rows`.
    """
    columns = ["model", "scheme", "volume", "structure", "distance", "intersection", "predicted", "reference"]
    parts = [wanted_rows(read_table(path, columns), path, experiments) for path in paths]
    tracked = [part[part["distance"].notna()] for part in parts]
    filled = [part for part in tracked if len(part)] or tracked[:1]
    return pd.concat(filled, ignore_index=True)


def read_runs(masks: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """The run tables of all jobs as one; jobs without any volume left out; experiments as in `wanted_rows`."""
    parts = [wanted_rows(read_table(Path(folder) / "run.parquet"), folder, experiments) for folder in masks]
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
