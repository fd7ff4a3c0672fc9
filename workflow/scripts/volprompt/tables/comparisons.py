"""Paired comparisons of configurations over the same volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.tables.bootstrap import FEWEST, bootstrap_interval, has_repeated_subjects, subjects_of
from volprompt.tables.configurations import configurations, dice_table
from volprompt.tables.medians import median_interval

COMPARISON_COLUMNS = ["model", "scheme", "other_model", "other_scheme", "kind", "structure", "n", "groups"]
COMPARISON_COLUMNS += ["median_difference", "low", "high", "interval", "p", "p_holm", "effect_size"]


def comparisons(
    scores: pd.DataFrame, groups: Mapping[str, str] | None = None, structure: str = "combined"
) -> pd.DataFrame:
    """Compare the Dice of pairs of configurations over the same volumes.

    scores: the score table.
    groups: the group (subject) of each volume.
    structure: whose Dice is compared.

    The rows are pairs of schemes within a model (`kind` is `schemes`), and of models under one scheme (`models`), with:
    `n` and `groups`, the numbers of volumes that both have and of their subjects; the median difference (other minus
    first) and its 95 % interval, which is the bootstrap's if a subject has several of the volumes, else the exact one
    (`interval` says which); the two-sided p-value of the Wilcoxon signed-rank test, the same after Holm's correction
    over all pairs of the table, and the effect size. Test and effect size use the mean difference of each subject,
    since two volumes of one subject are not independent.
    """
    dice = dice_table(scores, structure)
    with_scores = [pair for pair in configurations(scores) if dice[pair].notna().any()]
    rows = []
    for first, second in combinations(with_scores, 2):
        if first[0] != second[0] and first[1] != second[1]:
            continue
        difference = (dice[second] - dice[first]).dropna()
        subjects = subjects_of(list(difference.index), groups)
        independent = difference.groupby(subjects).mean()
        low, high, interval = _interval_of_difference(difference, subjects)
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


def _interval_of_difference(difference: Sequence[float], subjects: Sequence[str]) -> tuple[float, float, str]:
    if len(set(subjects)) < FEWEST:
        return float("nan"), float("nan"), "none"
    if has_repeated_subjects(subjects):
        return *bootstrap_interval(difference, subjects), "bootstrap by group"
    return *median_interval(difference), "order statistics"


def signed_rank(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test (Wilcoxon 1945), zeros discarded, as in SciPy.

    NaN for fewer than FEWEST differences other than zero, since the value could not fall below 0.05.
    """
    values = np.asarray(differences, dtype=float)
    if np.count_nonzero(values) < FEWEST:
        return float("nan")
    return float(stats.wilcoxon(values).pvalue)


def rank_biserial(differences: Sequence[float]) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), from -1 (all negative) to 1 (all positive).

    That is (sum of positive ranks - sum of negative ranks) / sum of all ranks. Differences are ranked by size, equal
    ones with their mean rank; zeros are discarded, as in the signed-rank test. NaN if all are zero.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return float("nan")
    ranks = stats.rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values by Holm's step-down method (Holm 1979); NaN stays NaN and does not count."""
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = [index for index in np.argsort(values) if not np.isnan(values[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(order) - rank)))
        corrected[index] = largest
    return corrected
