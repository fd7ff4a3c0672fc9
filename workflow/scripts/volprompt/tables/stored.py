"""Tables as files: reading those that the jobs wrote, and reading and writing those of the whole study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.cells import from_cell
from volprompt.files import read_table, table_metadata, write_tables

# The schemes of each experiment.
Experiments = Mapping[str, Sequence[str]]
NAMES = ("volume", "model", "scheme", "other_model", "other_scheme", "structure")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of the study. Names are text, even if they look like a number or say NA."""
    table = pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])
    texts = {
        name: column.map(_from_cell).astype(column.dtype)
        for name, column in table.items()
        if column.dtype.kind not in "biufc"
    }
    return table.assign(**texts)


def _from_cell(value: object) -> object:
    return from_cell(value) if isinstance(value, str) else value


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


def job_name(table: str | Path) -> str:
    """Return experiment, model and shard of a job from the path of its score table: `sam1/vit_b/003`."""
    path = Path(table)
    return str(path.relative_to(path.parents[2]).with_suffix(""))


def current_rows(table: pd.DataFrame, job: str | Path, experiments: Experiments | None) -> pd.DataFrame:
    """Return the rows whose scheme the job's experiment still has, with a volume's schemes in the experiment's order.

    table: a table of the job.
    job: the table's file or folder, `.../experiment/model/shard`.
    experiments: schemes by experiment; None keeps all rows.
    """
    if experiments is None:
        return table
    place = {scheme: index for index, scheme in enumerate(experiments[Path(job).parent.parent.name])}
    table = table[table["scheme"].isin(list(place))]
    volumes = {volume: index for index, volume in enumerate(table["volume"].drop_duplicates())}
    order = table["volume"].map(volumes) * len(place) + table["scheme"].map(place)
    return table.loc[order.sort_values(kind="stable").index]


def read_scores(paths: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """Read the score tables of all jobs into one; experiments as in `current_rows`."""
    return pd.concat([current_rows(read_table(path), path, experiments) for path in paths], ignore_index=True)


def read_tracked_slices(paths: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """Read the rows of the slice tables that have a distance to a prompted slice: those of video schemes.

    experiments as in `current_rows`.
    """
    columns = ["model", "scheme", "volume", "structure", "distance", "intersection", "predicted", "reference"]
    parts = [current_rows(read_table(path, columns), path, experiments) for path in paths]
    tracked = [part[part["distance"].notna()] for part in parts]
    filled = [part for part in tracked if len(part)] or tracked[:1]
    return pd.concat(filled, ignore_index=True)


def read_slice_columns(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Return the columns of the slice tables with their types, without any row."""
    return read_table(paths[0]).head(0)


def write_slices(
    paths: Sequence[str | Path],
    path: str | Path,
    experiments: Experiments | None = None,
    metadata: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write the slice tables of all jobs into one Parquet file, one after another: they may not fit into memory.

    paths: the slice tables; path: the file to write; experiments as in `current_rows`; metadata, fields: as in
    `files.write_table`.
    """
    write_tables((current_rows(read_table(one), one, experiments) for one in paths), path, metadata, fields)


def read_rounds(paths: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """Read the tables of rounds of all jobs into one; experiments as in `current_rows`."""
    parts = [current_rows(read_table(path), path, experiments) for path in paths]
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["model", "scheme", "structure"])


def read_runs(masks: Sequence[str | Path], experiments: Experiments | None = None) -> pd.DataFrame:
    """Read the run tables of all jobs into one, with the `experiment` of each, without jobs that have no volume.

    experiments as in `current_rows`.
    """
    parts = [
        current_rows(read_table(Path(folder) / "run.parquet"), folder, experiments).assign(
            experiment=Path(folder).parent.parent.name
        )
        for folder in masks
    ]
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).reindex(columns=_run_columns(filled))


def _run_columns(parts: Sequence[pd.DataFrame]) -> list[str]:
    expected = ["experiment", "model", "scheme", "volume", "status", "stage", "reason", "no_prompt", "parameters"]
    expected += ["prompts", "prompts_of", "clicks_of", "human_prompts", "seconds", "seconds_read", "seconds_encode"]
    expected += ["seconds_prompt", "seconds_write", "slices_per_second", "peak_memory_mb", "peak_gpu_memory_mb"]
    expected += ["device", "precision", "checkpoint_sha256", "versions"]
    return list(dict.fromkeys([*expected, *(column for part in parts for column in part.columns)]))
