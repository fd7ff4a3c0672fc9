"""The interval of a median: exact, by subject, or none; and how often it covers the median."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from volprompt.tables.bootstrap import bootstrap_percentiles, resampled_medians, volume_draws
from volprompt.tables.intervals import interval_of_median, order_statistics

# The interval runs from the k-th smallest to the k-th largest value, with the largest k for which the binomial
# distribution B(n, 1/2) has P(X <= k - 1) < 0.025:
#   n = 6:  P(X <= 0) = 1/64 = 0.016;          P(X <= 1) = 7/64 = 0.109              -> k = 1
#   n = 10: P(X <= 1) = 11/1024 = 0.011;       P(X <= 2) = 56/1024 = 0.055           -> k = 2
#   n = 20: P(X <= 5) = 21700/1048576 = 0.021; P(X <= 6) = 60460/1048576 = 0.058     -> k = 6
# With n = 5, P(X <= 0) = 1/32 = 0.031 already: there is no interval.


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15)])
def test_interval_of_a_median(n: int, low: int, high: int) -> None:
    values = np.random.default_rng(5).permutation(np.arange(1, n + 1))
    assert order_statistics(values) == (low, high)
    assert interval_of_median(values, list(map(str, range(n)))) == (low, high, "order statistics", n)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_values_for_an_interval(n: int) -> None:
    assert all(math.isnan(value) for value in order_statistics(list(range(n))))
    low, high, kind, groups = interval_of_median(list(range(n)), list(map(str, range(n))))
    assert (math.isnan(low), math.isnan(high), kind, groups) == (True, True, "none", n)


def test_interval_at_another_level() -> None:
    # n = 5: P(X <= 0) = 0.031 < 0.05 and P(X <= 1) = 6/32 = 0.19, so a 90 % interval has k = 1.
    assert order_statistics([3, 1, 2, 5, 4], level=0.9) == (1, 5)


def test_a_subject_with_two_volumes_asks_for_the_bootstrap() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    subjects = ["a", "b", "c", "d", "e", "f", "f"]
    found = interval_of_median(values, subjects)
    assert (found.kind, found.groups) == ("bootstrap by group", 6)
    assert 0.1 <= found.low < 0.4 < found.high <= 0.7
    assert interval_of_median(values, [*"abcdef", "g"])[:2] == (0.1, 0.7)


def test_five_subjects_have_no_interval_however_many_volumes() -> None:
    found = interval_of_median(list(range(50)), [str(index % 5) for index in range(50)])
    assert (math.isnan(found.low), math.isnan(found.high), found.kind, found.groups) == (True, True, "none", 5)


def test_percentiles_are_wider_for_few_subjects() -> None:
    # Eight subjects: t with 7 degrees of freedom has its 2.5 % at -2.36462; times sqrt(8 / 7) that is -2.52788, below
    # which the normal distribution has 0.574 %.
    assert bootstrap_percentiles(8) == (pytest.approx(0.57378, abs=1e-4), pytest.approx(99.42622, abs=1e-4))
    assert bootstrap_percentiles(10_000) == (pytest.approx(2.5, abs=0.01), pytest.approx(97.5, abs=0.01))


# Coverage

DESIGNS = [(subjects, per, icc) for subjects in (8, 10, 20, 50) for per in (2, 3, 10) for icc in (0.5, 0.9)]


def coverage(subjects: int, per: int, icc: float, rounds: int) -> float:
    """How often the interval of a median covers it, for normal values with an intraclass correlation."""
    random = np.random.default_rng(1)
    labels = [str(index // per) for index in range(subjects * per)]
    counts, percentiles = volume_draws(labels), bootstrap_percentiles(subjects)
    covered = 0
    for number in range(rounds):
        own = random.normal(0, math.sqrt(1 - icc), (subjects, per))
        values = (random.normal(0, math.sqrt(icc), (subjects, 1)) + own).ravel()
        low, high = np.percentile(resampled_medians(values, counts), percentiles)
        if number == 0:  # what is simulated is what the tables show
            assert interval_of_median(values, labels)[:2] == (low, high)
        covered += low <= 0 <= high
    return covered / rounds


@pytest.mark.slow
@pytest.mark.parametrize(("subjects", "per", "icc"), DESIGNS)
def test_coverage_of_the_interval_by_subject(subjects: int, per: int, icc: float, rounds: Callable[[int], int]) -> None:
    """At least 0.90; with few rounds as many as a share of 0.90 gives in 999 of 1000 simulations."""
    number = rounds(1000)
    least = float(stats.binom.ppf(0.001, number, 0.90)) / number if number < 1000 else 0.90
    assert coverage(subjects, per, icc, number) >= least
