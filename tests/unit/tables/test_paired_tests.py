"""Signed-rank tests, effect sizes and Holm's correction: worked out by hand, by enumeration and by SciPy."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from volprompt.tables.paired_tests import equivalence, holm, independent_differences, rank_biserial, signed_rank

NAN = float("nan")


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        # Smallest first: 0.01 * 3, 0.03 * 2, then 0.04 * 1 raised to its predecessor's 0.06.
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, NAN, 0.01, 0.03], [0.06, NAN, 0.03, 0.06]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([NAN], [NAN]),
        ([], []),
    ],
)
def test_holm(given: list[float], corrected: list[float]) -> None:
    assert holm(given).tolist() == pytest.approx(corrected, nan_ok=True)


def enumerated(differences: list[float]) -> float:
    """The two-sided p-value from all 2**n patterns of signs, zeros taken out."""
    values = np.array([value for value in differences if value])
    ranks = stats.rankdata(np.abs(values))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product((False, True), repeat=len(values))])
    seen = ranks[values > 0].sum()
    return float(min(1.0, 2 * min((sums >= seen - 1e-9).mean(), (sums <= seen + 1e-9).mean())))


def test_signed_rank() -> None:
    # All six differences point the same way: 2 of the 2**6 patterns of signs are as extreme.
    assert signed_rank([1, 2, 3, 4, 5, 6]) == 2 / 64
    assert signed_rank([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]) == 2 / 64
    assert signed_rank([1, 2, 3, 4, 5, 6], "greater") == 1 / 64
    assert signed_rank([1, 2, 3, 4, 5, 6], "less") == 1.0


def test_zeros_do_not_change_p() -> None:
    # With the zeros counted among the values, SciPy falls back on the normal distribution: 0.02771.
    assert signed_rank([1, 2, 3, 4, 5, 6, *[0] * 8]) == 2 / 64


def test_ties_are_exact() -> None:
    # Six equal differences: every rank is 3.5, and 2 of 64 patterns have all on one side.
    assert signed_rank([0.1] * 6) == 2 / 64
    # Ranks 2, 2, 2, 4.5, 4.5, 6 of 1, 1, -1, 2, 2, 3: the negative sum is 2. Of the 64 patterns four have at most 2:
    # none negative, or one of the three ones.
    assert signed_rank([1, 1, -1, 2, 2, 3]) == 2 * 4 / 64


@pytest.mark.parametrize("seed", range(8))
def test_signed_rank_by_enumeration(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-4, 6, 11).tolist()
    assert signed_rank(differences) == pytest.approx(enumerated(differences), abs=1e-12)


@pytest.mark.parametrize("n", [7, 20, 50])
def test_signed_rank_without_ties_is_scipys(n: int) -> None:
    differences = np.random.default_rng(2).normal(0.2, 1, n)
    for alternative in ("two-sided", "greater", "less"):
        theirs = stats.wilcoxon(differences, alternative=alternative, method="exact").pvalue
        assert signed_rank(differences, alternative) == pytest.approx(theirs, abs=1e-12)


def test_signed_rank_of_many_is_scipys() -> None:
    differences = np.random.default_rng(2).normal(0.1, 1, 60)
    assert signed_rank([*differences, 0.0, 0.0]) == stats.wilcoxon(differences).pvalue


# With five differences all of one sign, p is 2 / 2**5 = 0.06: no result would tell anything.
@pytest.mark.parametrize("differences", [[], [0, 0, 0], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 0]])
def test_signed_rank_of_fewer_than_six_differences(differences: list[float]) -> None:
    assert math.isnan(signed_rank(differences))


def test_rounding_is_no_difference() -> None:
    """Seven subjects whose three volumes differ by 0.1, 0.2 and -0.3: every mean is 0, summed in any order."""
    for order in ([0.1, 0.2, -0.3], [-0.3, 0.2, 0.1], [0.2, -0.3, 0.1]):
        subjects = [f"subject{index}" for index in range(7) for _ in order]
        means = independent_differences(order * 7, subjects)
        assert means.tolist() == [0.0] * 7
        assert math.isnan(signed_rank(means))
        assert math.isnan(rank_biserial(means))


def test_the_mean_difference_of_each_subject() -> None:
    # Of subject b the mean of 0.1, 0.1 and 0.7 is 0.3; their median would be 0.1.
    means = independent_differences([0.1, 0.2, 0.1, 0.7, 0.4], ["b", "a", "b", "b", "a"])
    assert sorted(means.tolist()) == [0.3, 0.3]


def test_sums_that_differ_by_rounding_are_ties() -> None:
    # 0.1 + 0.2 is more than 0.3 in floating point; as ties they have rank 1.5 each.
    means = independent_differences([0.1 + 0.2, -0.3, 0.5], ["a", "b", "c"])
    assert rank_biserial(means) == pytest.approx((1.5 - 1.5 + 3) / 6)


def test_equivalence() -> None:
    # Differences within +- 0.05: both one-sided tests see six values on one side, 1 of 64 patterns each.
    differences = [0.01, -0.02, 0.03, -0.01, 0.02, 0.04]
    assert equivalence(differences, 0.05) == 1 / 64
    # Within +- 0.035 the value 0.04 lies outside: minus the margin they are -0.025, -0.055, -0.005, -0.045, -0.015 and
    # 0.005. The positive one shares ranks 1 and 2 (1.5). Two or more values are positive in all but three of the 64
    # patterns with a sum of at most 1.5: none, or one of the two of rank 1.5.
    assert equivalence(differences, 0.035) == 3 / 64
    assert equivalence([0.1] * 8, 0.05) == 1.0
    assert equivalence([0.0] * 6, 0.05) == 1 / 64
    assert math.isnan(equivalence([0.0] * 5, 0.05))


@pytest.mark.parametrize(
    ("differences", "correlation"),
    [
        ([0.3, -0.1, 0.2], (3 + 2 - 1) / 6),
        ([0.3, -0.1, 0.0, 0.2], (3 + 2 - 1) / 6),  # the zero is not ranked
        ([1, -1, 2], (1.5 - 1.5 + 3) / 6),
        ([-2, 1, -3, -4], (-2 + 1 - 3 - 4) / 10),
        ([0.1, 0.2], 1),
        ([-0.1], -1),
    ],
)
def test_rank_biserial(differences: list[float], correlation: float) -> None:
    assert rank_biserial(differences) == pytest.approx(correlation)


@pytest.mark.parametrize("differences", [[], [0, 0]])
def test_rank_biserial_without_any_difference(differences: list[float]) -> None:
    assert math.isnan(rank_biserial(differences))
