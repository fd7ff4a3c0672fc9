"""Tests and effect sizes of paired differences, and the correction for several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from volprompt.tables.bootstrap import FEWEST

# p-values below it, corrected where there are several, count as a difference.
SIGNIFICANT = 0.05
# Differences are rounded to so many decimals: a mean of 0.1, 0.2 and -0.3 is 0, and 0.1 + 0.2 has the rank of 0.3.
DECIMALS = 10
# Up to so many differences the distribution of the rank sum is computed in full, beyond it is taken as normal.
EXACT_UP_TO = 50

Alternative = Literal["two-sided", "greater", "less"]


def independent_differences(differences: Sequence[float] | np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """Return the mean difference of each subject, rounded to DECIMALS: float64 (subjects,).

    differences: (volumes,), none of them NaN; subjects: of every volume.
    """
    names, place = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    sums = np.bincount(place, np.asarray(differences, dtype=float), minlength=len(names))
    return np.round(sums / np.bincount(place, minlength=len(names)), DECIMALS)


def signed_rank(differences: Sequence[float] | np.ndarray, alternative: Alternative = "two-sided") -> float:
    """Return the p-value of the Wilcoxon signed-rank test (Wilcoxon 1945).

    differences: rounded. Zeros are taken out first. For up to EXACT_UP_TO others the distribution is exact, ties
    included: that of the rank sum given the ranks (Pratt and Gibbons, Concepts of Nonparametric Theory, 1981, section
    3.7); beyond, it is the normal one with the correction for ties. NaN for fewer than FEWEST differences, since the
    two-sided value could not fall below 0.05.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if len(values) < FEWEST:
        return float("nan")
    if len(values) > EXACT_UP_TO:
        return float(stats.wilcoxon(values, alternative=alternative, method="approx", correction=False).pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)  # ties have half ranks
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:  # each rank is positive or negative with 1/2
        ways[rank:] = (ways[rank:] + ways[: len(ways) - rank]) / 2
        ways[:rank] /= 2
    positive = int(doubled[values > 0].sum())
    at_least, at_most = float(ways[positive:].sum()), float(ways[: positive + 1].sum())
    both = min(1.0, 2 * min(at_least, at_most))
    return {"two-sided": both, "greater": min(1.0, at_least), "less": min(1.0, at_most)}[alternative]


def equivalence(differences: Sequence[float] | np.ndarray, margin: float) -> float:
    """Return the p-value of two one-sided signed-rank tests that the differences lie within +- margin.

    differences: rounded; margin: above 0. It is the larger of the two (Schuirmann 1987; by ranks: Hauschke, Steinijans
    and Diletti 1990). NaN for fewer than FEWEST differences other than a limit.
    """
    values = np.asarray(differences, dtype=float)
    above = signed_rank(np.round(values + margin, DECIMALS), "greater")
    below = signed_rank(np.round(values - margin, DECIMALS), "less")
    return float(np.max([above, below]))  # NaN if one is


def rank_biserial(differences: Sequence[float] | np.ndarray) -> float:
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


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Correct p-values by Holm's step-down method (Holm 1979); NaN stays NaN and does not count."""
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = [index for index in np.argsort(values) if not np.isnan(values[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(order) - rank)))
        corrected[index] = largest
    return corrected
