"""Medians over volumes, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.columns import SURFACE_COLUMNS, column_of, median_columns
from volprompt.tables.bootstrap import bootstrap_interval, subjects_of
from volprompt.tables.configurations import configurations, rows_of


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the exact, distribution-free interval of a median: the order statistics that enclose it with `level`.

    values: none of them NaN; level: the least probability of enclosing the median. The number of values below the
    median is binomial with n and 1/2 (Conover, Practical Nonparametric Statistics, section 3.2), so a 95 % interval
    exists from n = 6 on; (NaN, NaN) for fewer.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    if rank == 0:
        return float("nan"), float("nan")
    return float(ordered[rank - 1]), float(ordered[n - rank])


def summarize(values: Iterable[float], subjects: Sequence[str] | None = None) -> dict[str, float]:
    """Return the values of `STRUCTURE_COLUMNS`, by name, over the volumes of a structure.

    values: the Dice of each volume, NaN if it is undefined.
    subjects: of every volume, for the bootstrap interval; by default every volume is a subject of its own.
    """
    dice = np.asarray(list(values), dtype=float)
    present = ~np.isnan(dice)
    defined = dice[present]
    subject_names = np.asarray(range(len(dice)) if subjects is None else subjects).astype(str)
    low, high = median_interval(defined)
    bootstrap_low, bootstrap_high = bootstrap_interval(defined, list(subject_names[present]))
    quartiles = np.percentile(defined, [25, 75]) if len(defined) else [np.nan, np.nan]
    return {
        "median": float(np.median(defined)) if len(defined) else float("nan"),
        "low": low,
        "high": high,
        "bootstrap_low": bootstrap_low,
        "bootstrap_high": bootstrap_high,
        "iqr": float(quartiles[1] - quartiles[0]),
        "worst": float(defined.min()) if len(defined) else float("nan"),
        "undefined": len(dice) - len(defined),
    }


def medians(
    scores: pd.DataFrame, runs: pd.DataFrame, scored: Sequence[str], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row per model and scheme, in the order of the score table, with the columns of `columns.py`.

    scores: the score table.
    runs: the run tables of all jobs.
    scored: the scored structures.
    groups: the group (subject) of each volume.
    """
    rows = []
    for model, scheme in configurations(scores):
        chosen = rows_of(scores, model, scheme)
        done = chosen[chosen["status"] == "ok"]
        runs_here = rows_of(runs, model, scheme)
        finished = runs_here[runs_here["status"] == "ok"]
        row: dict[str, Any] = {
            "model": model,
            "scheme": scheme,
            "parameters": int(finished["parameters"].iloc[0]) if len(finished) else pd.NA,
            "n": done["volume"].nunique(),
        }
        for name in [*scored, "combined"]:
            of_structure = chosen[(chosen["structure"] == name) & chosen["volume"].isin(done["volume"])]
            summary = summarize(of_structure["dice"], subjects_of(list(of_structure["volume"]), groups))
            row |= {column_of(name, column): value for column, value in summary.items()}
        combined = done[done["structure"] == "combined"]
        for column in SURFACE_COLUMNS:
            row[column_of("combined", column.name)] = float(combined[column.name].median())
        row["seconds_per_volume"] = float(finished["seconds"].median()) if len(finished) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)[median_columns(scored)].astype({"parameters": "Int64"})
