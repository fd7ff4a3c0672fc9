"""Medians over volumes, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.tables.bootstrap import bootstrap_interval, labels_of
from volprompt.tables.configurations import configurations, rows_of

# The surface scores whose median over the volumes stands beside that of combined Dice.
COMBINED_SCORES = ("nsd", "hd95_mm", "assd_mm")


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Exact, distribution-free interval of a median: the order statistics that enclose it with at least `level`.

    The number of values below the median is binomial with n and 1/2 (Conover, Practical Nonparametric Statistics,
    section 3.2), so from n = 6 on there is a 95 % interval, and none for fewer: (NaN, NaN).
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    if rank == 0:
        return float("nan"), float("nan")
    return float(ordered[rank - 1]), float(ordered[n - rank])


def summarize(values: Iterable[float], labels: Sequence[str] | None = None) -> dict[str, float]:
    """Median, intervals, interquartile range and worst of the defined values, and how many are undefined (NaN).

    labels: the group of each value's volume, for the bootstrap interval; without them each value counts by itself.
    """
    given = np.asarray(list(values), dtype=float)
    present = ~np.isnan(given)
    defined = given[present]
    own = np.asarray(range(len(given)) if labels is None else labels).astype(str)
    low, high = median_interval(defined)
    bootstrap_low, bootstrap_high = bootstrap_interval(defined, list(own[present]))
    quartiles = np.percentile(defined, [25, 75]) if len(defined) else [np.nan, np.nan]
    return {
        "median": float(np.median(defined)) if len(defined) else float("nan"),
        "low": low,
        "high": high,
        "bootstrap_low": bootstrap_low,
        "bootstrap_high": bootstrap_high,
        "iqr": float(quartiles[1] - quartiles[0]),
        "worst": float(defined.min()) if len(defined) else float("nan"),
        "undefined": len(given) - len(defined),
    }


def medians(
    scores: pd.DataFrame, runs: pd.DataFrame, structures: Sequence[str], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """One row per model and scheme, in the order of the score table.

    scores: the score table; runs: the run tables of all jobs; structures: the scored ones; groups: the group (subject)
    of each volume. `n` counts the volumes with masks and reference; the median Dice stands under the structure's own
    name, those of `combined` masks' surface scores under `combined_nsd` and so on.
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
        for name in [*structures, "combined"]:
            of_structure = done[done["structure"] == name]
            summary = summarize(of_structure["dice"], labels_of(list(of_structure["volume"]), groups))
            row[name] = summary.pop("median")
            row |= {f"{name}_{key}": value for key, value in summary.items()}
        combined = done[done["structure"] == "combined"]
        row |= {f"combined_{name}": float(combined[name].median()) for name in COMBINED_SCORES}
        row["seconds_per_volume"] = float(finished["seconds"].median()) if len(finished) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows).astype({"parameters": "Int64"})
