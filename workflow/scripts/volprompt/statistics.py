"""Medians with honest intervals, paired comparisons, ranks and cost, over the volumes of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.resampling import FEWEST, are_grouped, bootstrap_interval, labels_of, resampled_medians, volume_draws

# The surface scores whose median over the volumes stands beside that of combined Dice.
COMBINED_SCORES = ("nsd", "hd95_mm", "assd_mm")
COMPARISON_COLUMNS = ["model", "scheme", "other_model", "other_scheme", "kind", "structure", "n", "groups"]
COMPARISON_COLUMNS += ["median_difference", "low", "high", "interval", "p", "p_holm", "effect_size"]


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
            of_structure = done[done["structure"] == name]
            summary = summarize(of_structure["dice"], labels_of(list(of_structure["volume"]), groups))
            row[name] = summary.pop("median")
            row |= {f"{name}_{key}": value for key, value in summary.items()}
        combined = done[done["structure"] == "combined"]
        row |= {f"combined_{name}": float(combined[name].median()) for name in COMBINED_SCORES}
        row["seconds_per_volume"] = float(finished["seconds"].median()) if len(finished) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows).astype({"parameters": "Int64"})


def dice_table(scores: pd.DataFrame, structure: str) -> pd.DataFrame:
    """Dice of one structure, volumes in rows and configurations (model, scheme) in columns; NaN where undefined."""
    chosen = scores[(scores["structure"] == structure) & (scores["status"] == "ok")]
    columns = {pair: _of(chosen, *pair).set_index("volume")["dice"].astype(float) for pair in configurations(scores)}
    table = pd.DataFrame(columns, dtype=float)
    return table.reindex(columns=pd.MultiIndex.from_tuples(columns, names=["model", "scheme"]))


def comparisons(
    scores: pd.DataFrame, groups: Mapping[str, str] | None = None, structure: str = "combined"
) -> pd.DataFrame:
    """Paired comparisons of Dice. `kind`: `schemes` within a model, or `models` under one scheme.

    groups: the group (subject) of each volume. For each pair: `n`, the volumes that both have, and their groups; the
    median difference (other minus first) with its 95 % interval, which is the bootstrap's by group where a group has
    several of the volumes, else the exact one (`interval` says which); the two-sided p-value of the Wilcoxon
    signed-rank test, that value after Holm's correction over all pairs of the table, and the effect size. Test and
    effect size take the mean difference of each group, since volumes of one subject are no independent evidence.
    """
    dice = dice_table(scores, structure)
    with_scores = [pair for pair in configurations(scores) if dice[pair].notna().any()]
    rows = []
    for first, second in combinations(with_scores, 2):
        if first[0] != second[0] and first[1] != second[1]:
            continue
        difference = (dice[second] - dice[first]).dropna()
        labels = labels_of(list(difference.index), groups)
        independent = difference.groupby(labels).mean()
        low, high, interval = _interval_of_difference(difference, labels)
        rows.append(
            {
                "model": first[0],
                "scheme": first[1],
                "other_model": second[0],
                "other_scheme": second[1],
                "kind": "schemes" if first[0] == second[0] else "models",
                "structure": structure,
                "n": len(difference),
                "groups": len(independent),
                "median_difference": float(difference.median()),
                "low": low,
                "high": high,
                "interval": interval,
                "p": signed_rank(independent),
                "effect_size": rank_biserial(independent),
            }
        )
    table = pd.DataFrame(rows, columns=[column for column in COMPARISON_COLUMNS if column != "p_holm"])
    return table.assign(p_holm=holm(table["p"]))[COMPARISON_COLUMNS]


def _interval_of_difference(difference: Sequence[float], labels: Sequence[str]) -> tuple[float, float, str]:
    if len(set(labels)) < FEWEST:
        return float("nan"), float("nan"), "none"
    if are_grouped(labels):
        return *bootstrap_interval(difference, labels), "bootstrap by group"
    return *median_interval(difference), "order statistics"


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test, zeros discarded (Wilcoxon 1945), as SciPy computes it.

    NaN for fewer than FEWEST differences other than zero: whatever they are, the test could not fall below 0.05.
    """
    values = np.asarray(differences, dtype=float)
    if np.count_nonzero(values) < FEWEST:
        return float("nan")
    return float(stats.wilcoxon(values).pvalue)


def rank_biserial(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): of the ranks' sum, the share of positive differences minus
    that of negative ones.

    Differences are ranked by size, equal ones with their mean rank; zeros are discarded, as in the signed-rank test.
    From -1 (all negative) to 1 (all positive); NaN where all are zero.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return float("nan")
    ranks = stats.rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


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


def ranks(scores: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Rank of each configuration by median combined Dice, 1 the best, and how stable it is under the bootstrap.

    Medians are over the `n` volumes that all configurations have; a configuration without any score has no rank and
    does not shorten the others' list. Every resample draws the same volumes for all. `rank_low, rank_high`: the ranks
    at 2.5 and 97.5 % of the resamples; `first_share`: the share of resamples in which it is first. Equal medians share
    their mean rank, and those that are first together a resample between them. NaN for fewer than FEWEST groups.
    """
    dice = dice_table(scores, "combined")
    ranked = [pair for pair in dice.columns if dice[pair].notna().any()]
    shared = dice[ranked].dropna()
    table = pd.DataFrame(configurations(scores), columns=["model", "scheme"]).assign(n=len(shared))
    for column in ("rank", "rank_low", "rank_high", "first_share"):
        table[column] = float("nan")
    if shared.empty:
        return table
    places = [index for index, pair in enumerate(dice.columns) if pair in set(ranked)]
    table.loc[places, "rank"] = stats.rankdata(-shared.median().to_numpy())
    labels = labels_of(list(shared.index), groups)
    if len(set(labels)) < FEWEST:
        return table
    counts = volume_draws(labels)
    resampled = np.column_stack([resampled_medians(shared[pair].to_numpy(), counts) for pair in ranked])
    resampled_ranks = stats.rankdata(-resampled, axis=1)
    low, high = np.percentile(resampled_ranks, [2.5, 97.5], axis=0, method="inverted_cdf")  # ranks that occurred
    first = resampled == resampled.max(axis=1, keepdims=True)
    table.loc[places, "rank_low"] = low
    table.loc[places, "rank_high"] = high
    table.loc[places, "first_share"] = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return table


def cost(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """What each configuration costs: medians over its volumes, and the peak memory of its jobs; and what it gives.

    `dice` is the median combined Dice.
    """
    done = runs[runs["status"] == "ok"]
    grouped = done.groupby(["model", "scheme"], sort=False)
    table = grouped.agg(
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
    dice = dice_table(scores, "combined").median()
    return table.assign(dice=[dice.get(pair, float("nan")) for pair in configurations(table)])


def configurations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of model and scheme in a table, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def _of(table: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["scheme"] == scheme)]
