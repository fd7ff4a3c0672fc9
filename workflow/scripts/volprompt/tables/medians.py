"""Medians over volumes, with their intervals: in rows of their own, and arranged with a row per configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from volprompt.columns import SCORED_TOGETHER, SURFACE_COLUMNS, column_of, median_columns
from volprompt.tables.bootstrap import count_subjects, subjects_of
from volprompt.tables.comparisons import standings
from volprompt.tables.configurations import configurations, rows_of, value_table
from volprompt.tables.design import TableDesign
from volprompt.tables.failures import FAILED
from volprompt.tables.intervals import interval_of_median

# Scores with a median, and whether more is better.
SUMMARIZED = {"dice": True, "nsd": True, "hd95_mm": False, "assd_mm": False}
# Which volumes a median is over: those with a score, or also those that failed, with a Dice of 0.
SCORED, FAILED_AS_0 = "scored", "failed_as_0"
SUMMARY_COLUMNS = ["n", "groups", "median", "low", "high", "interval", "iqr", "worst"]
LONG_COLUMNS = ["model", "scheme", "parameters", "structure", "score", "analysis", *SUMMARY_COLUMNS]


def summarize(
    values: Sequence[float] | np.ndarray, subjects: Sequence[str], more_is_better: bool = True
) -> dict[str, Any]:
    """Return SUMMARY_COLUMNS over the volumes that have a value.

    values: of each volume, NaN if it is undefined; subjects: of every volume; more_is_better: whether the worst value
    is the lowest.
    """
    numbers = np.asarray(values, dtype=float)
    present = ~np.isnan(numbers)
    defined = numbers[present]
    interval = interval_of_median(defined, list(np.asarray(subjects, dtype=object)[present]))
    with np.errstate(invalid="ignore"):  # between infinite distances
        quartiles = np.percentile(defined, [25, 75]) if len(defined) else np.array([np.nan, np.nan])
    worst = (defined.min() if more_is_better else defined.max()) if len(defined) else np.nan
    return {
        "n": len(defined),
        "groups": interval.groups,
        "median": float(np.median(defined)) if len(defined) else float("nan"),
        **interval.columns(),
        "interval": interval.kind,
        "iqr": float(quartiles[1] - quartiles[0]) if np.isfinite(quartiles).all() else float("nan"),
        "worst": float(worst),
    }


def medians_long(scores: pd.DataFrame, runs: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return one row per model, scheme, structure (with those over all structures), score and analysis.

    scores: the score table; runs: the run tables of all jobs; design: what of the configuration reaches the tables.

    `analysis` is `scored` for the volumes that have a score. For Dice it is also `failed_as_0`: volumes that failed,
    or in which the structure could not be prompted, are counted with a Dice of 0.
    """
    rows: list[dict[str, Any]] = []
    for model, scheme in configurations(scores):
        chosen = rows_of(scores, model, scheme)
        named = {"model": model, "scheme": scheme, "parameters": _parameters(rows_of(runs, model, scheme))}
        for structure in [*design.scored, *SCORED_TOGETHER]:
            of_structure = chosen[chosen["structure"] == structure]
            subjects = subjects_of(list(of_structure["volume"]), design.groups)
            done = of_structure["status"] == "ok"
            for score, more_is_better in SUMMARIZED.items():
                values = of_structure[score].where(done)
                row = {**named, "structure": structure, "score": score, "analysis": SCORED}
                rows.append(row | summarize(values, subjects, more_is_better))
                if score == "dice":
                    as_0 = values.mask(of_structure["status"].isin(FAILED), 0.0)
                    rows.append({**row, "analysis": FAILED_AS_0} | summarize(as_0, subjects))
    return pd.DataFrame(rows, columns=LONG_COLUMNS).astype({"parameters": "Int64"})


def medians(scores: pd.DataFrame, runs: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return one row per model and scheme, in the order of the score table, with the columns of `columns.py`.

    Arguments as in `medians_long`.
    """
    long = medians_long(scores, runs, design).set_index(["model", "scheme", "structure", "score", "analysis"])
    structures = [*design.scored, "combined"]
    standing: dict[tuple[str, str, str], tuple[str, bool | None]] = {}
    for name in structures:
        of_pair = standings(value_table(scores, name, repetitions=design.repetitions), design.groups)
        standing |= {(name, *pair): value for pair, value in of_pair.items()}
    rows = []
    for model, scheme in configurations(scores):
        chosen = rows_of(scores, model, scheme)
        done = chosen.loc[chosen["status"] == "ok", "volume"].unique()
        runs_here = rows_of(runs, model, scheme)
        finished = runs_here[runs_here["status"] == "ok"]
        row: dict[str, Any] = {
            "model": model,
            "scheme": scheme,
            "parameters": _parameters(runs_here),
            "n": len(done),
            "groups": count_subjects(done, design.groups),
            "interval": long.loc[(model, scheme, "combined", "dice", SCORED), "interval"],
        }
        for name in structures:
            of_structure = chosen[chosen["structure"] == name]
            summary = long.loc[(model, scheme, name, "dice", SCORED)]
            place = (name, model, design.repetitions.get(scheme, scheme))
            found = {column: summary[column] for column in ("median", "low", "high", "iqr", "worst")}
            found |= {
                "undefined": int(of_structure.loc[of_structure["volume"].isin(done), "dice"].isna().sum()),
                "failed": int(of_structure["status"].isin(FAILED).sum()),
                "failed_as_0": long.loc[(model, scheme, name, "dice", FAILED_AS_0), "median"],
                "standing": standing[place][0],
                "same_volumes": standing[place][1],
            }
            row |= {column_of(name, column): value for column, value in found.items()}
        for column in SURFACE_COLUMNS:
            row[column_of("combined", column.name)] = long.loc[
                (model, scheme, "combined", column.name, SCORED), "median"
            ]
        row["seconds_per_volume"] = float(finished["seconds"].median()) if len(finished) else float("nan")
        rows.append(row)
    same = {column_of(name, "same_volumes"): "boolean" for name in structures}
    return pd.DataFrame(rows)[median_columns(design.scored)].astype({"parameters": "Int64", **same})


def _parameters(runs: pd.DataFrame) -> Any:
    known = runs.loc[runs["status"] == "ok", "parameters"]
    return int(known.iloc[0]) if len(known) else pd.NA
