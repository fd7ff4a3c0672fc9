"""Medians with honest intervals, paired comparisons and cost, over the volumes of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats


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


def summarize(values: Iterable[float]) -> dict[str, float]:
    """Median, interval, interquartile range and worst of the defined values, and how many are undefined (NaN)."""
    given = np.asarray(list(values), dtype=float)
    defined = given[~np.isnan(given)]
    low, high = median_interval(defined)
    quartiles = np.percentile(defined, [25, 75]) if len(defined) else [np.nan, np.nan]
    return {
        "median": float(np.median(defined)) if len(defined) else float("nan"),
        "low": low,
        "high": high,
        "iqr": float(quartiles[1] - quartiles[0]),
        "worst": float(defined.min()) if len(defined) else float("nan"),
        "undefined": len(given) - len(defined),
    }


def medians(scores: pd.DataFrame, runs: pd.DataFrame, structures: Sequence[str]) -> pd.DataFrame:
    """One row per model and scheme, in the order of the score table.

    scores: the score table; runs: the run tables of all jobs; structures: the scored ones. `n` counts the volumes with
    masks and reference; the median stands under the structure's own name.
    """
    rows = []
    for model, scheme in configurations(scores):
        chosen = _of(scores, model, scheme)
        done = chosen[chosen["status"] == "ok"]
        runs_here = _of(runs, model, scheme)
        finished = runs_here[runs_here["status"] == "ok"]
        row: dict[str, Any] = {
            "model": model,
            "scheme": scheme,
            "parameters": int(finished["parameters"].iloc[0]) if len(finished) else pd.NA,
            "n": done["volume"].nunique(),
        }
        for name in [*structures, "combined"]:
            summary = summarize(done.loc[done["structure"] == name, "dice"])
            row[name] = summary.pop("median")
            row |= {f"{name}_{key}": value for key, value in summary.items()}
        row["seconds_per_volume"] = float(finished["seconds"].median()) if len(finished) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows).astype({"parameters": "Int64"})


def comparisons(scores: pd.DataFrame, structure: str = "combined") -> pd.DataFrame:
    """Paired comparisons of Dice: schemes within a model, and models within a scheme.

    For each pair: the volumes that both have, the median difference (second minus first), its exact interval, the
    two-sided Wilcoxon signed-rank p-value, and that value after Holm's correction over all pairs.
    """
    chosen = scores[(scores["structure"] == structure) & (scores["status"] == "ok")]
    dice = {key: group.set_index("volume")["dice"] for key, group in chosen.groupby(["model", "scheme"])}
    rows = []
    for first, second in combinations(configurations(chosen), 2):
        if first[0] != second[0] and first[1] != second[1]:
            continue
        difference = (dice[second] - dice[first]).dropna()
        low, high = median_interval(difference)
        rows.append(
            {
                "model": first[0],
                "scheme": first[1],
                "other_model": second[0],
                "other_scheme": second[1],
                "structure": structure,
                "n": len(difference),
                "median_difference": float(difference.median()),
                "low": low,
                "high": high,
                "p": signed_rank(difference),
            }
        )
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS[:-1])
    return table.assign(p_holm=holm(table["p"]))


COMPARISON_COLUMNS = [
    "model",
    "scheme",
    "other_model",
    "other_scheme",
    "structure",
    "n",
    "median_difference",
    "low",
    "high",
    "p",
    "p_holm",
]


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test; NaN where no difference is other than zero."""
    values = np.asarray(differences, dtype=float)
    if not np.any(values):
        return float("nan")
    return float(stats.wilcoxon(values).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (Holm 1979); NaN stays NaN and does not count."""
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = [index for index in np.argsort(values) if not np.isnan(values[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(order) - rank)))
        corrected[index] = largest
    return corrected


def cost(runs: pd.DataFrame) -> pd.DataFrame:
    """What each configuration costs: medians over its volumes, and the peak memory of its jobs."""
    done = runs[runs["status"] == "ok"]
    grouped = done.groupby(["model", "scheme"], sort=False)
    return grouped.agg(
        parameters=("parameters", "first"),
        volumes=("volume", "nunique"),
        prompts_per_volume=("prompts", "median"),
        seconds_per_volume=("seconds", "median"),
        seconds_encode=("seconds_encode", "median"),
        seconds_prompt=("seconds_prompt", "median"),
        slices_per_second=("slices_per_second", "median"),
        peak_memory_mb=("peak_memory_mb", "max"),
        peak_gpu_memory_mb=("peak_gpu_memory_mb", "max"),
        device=("device", "first"),
        precision=("precision", "first"),
    ).reset_index()


def configurations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of model and scheme in a table, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def _of(table: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["scheme"] == scheme)]
