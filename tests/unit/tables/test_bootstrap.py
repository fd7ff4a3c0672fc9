"""The bootstrap against hand-worked samples and SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from volprompt.tables.bootstrap import (
    RESAMPLES,
    SEED,
    bootstrap_interval,
    bootstrap_percentiles,
    has_repeated_subjects,
    resampled_medians,
    subject_draws,
    subjects_of,
    volume_draws,
)

SAMPLE = np.random.default_rng(7).normal(0.9, 0.05, 31)
LEVEL = 1 - 2 * bootstrap_percentiles(31)[0] / 100  # what SciPy has to be asked for to use the same percentiles


def alone(values: np.ndarray | list[float]) -> list[str]:
    """Labels of values that each belong to a group of their own."""
    return [f"knee{index}" for index in range(len(values))]


@pytest.mark.parametrize(
    ("counts", "median"),
    [
        ([1, 1, 1], 2),  # of 3, 1, 2
        ([2, 0, 1], 3),  # of 3, 3, 2
        ([0, 0, 3], 2),
        ([1, 2, 0], 1),
        ([1, 2, 1], 1.5),  # of 3, 1, 1, 2
        ([1, 1, 0], 2),  # of 3, 1
        ([0, 1, 0], 1),
    ],
)
def test_median_of_a_resample(counts: list[int], median: float) -> None:
    assert resampled_medians([3, 1, 2], np.array([counts])).tolist() == [median]


def test_every_resample_draws_as_many_groups_as_there_are() -> None:
    counts = subject_draws(9)
    assert counts.shape == (RESAMPLES, 9)
    assert (counts.sum(axis=1) == 9).all()
    # Each group is drawn once on average; the mean of 2000 binomial counts has a standard error of 0.02.
    assert counts.mean(axis=0) == pytest.approx(np.ones(9), abs=0.1)


def test_the_volumes_of_a_group_are_drawn_together() -> None:
    counts = volume_draws(["s1", "s2", "s1", "s3"])
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_a_volume_without_group_is_one_of_its_own() -> None:
    groups = {"a": "subject", "b": "", "c": "subject"}
    assert subjects_of(["a", "b", "c", "d"], groups) == ["subject", "b", "subject", "d"]
    assert subjects_of(["a", "b"], None) == ["a", "b"]
    assert has_repeated_subjects(["subject", "b", "subject"])
    assert not has_repeated_subjects(["a", "b", "c"])


def test_constant_values_have_an_interval_of_no_width() -> None:
    assert bootstrap_interval([0.25] * 8, alone([0] * 8)) == (0.25, 0.25)


def test_interval_is_that_of_scipy() -> None:
    generator = np.random.default_rng(SEED)
    theirs = stats.bootstrap(
        (SAMPLE,), np.median, n_resamples=RESAMPLES, method="percentile", rng=generator, confidence_level=LEVEL
    )
    assert bootstrap_interval(SAMPLE, alone(SAMPLE)) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)


def test_interval_hardly_depends_on_the_draws() -> None:
    theirs = stats.bootstrap(
        (SAMPLE,), np.median, n_resamples=20_000, method="percentile", rng=11, confidence_level=LEVEL
    )
    # By one value of the sample at most: next to its median they are 0.012 apart.
    assert bootstrap_interval(SAMPLE, alone(SAMPLE)) == pytest.approx(tuple(theirs.confidence_interval), abs=0.0125)


def test_two_equal_volumes_of_a_subject_are_no_more_evidence_than_one() -> None:
    once = bootstrap_interval(SAMPLE, alone(SAMPLE))
    twice = np.repeat(SAMPLE, 2)
    assert bootstrap_interval(twice, [label for label in alone(SAMPLE) for _ in range(2)]) == once
    low, high = bootstrap_interval(twice, alone(twice))
    assert high - low < once[1] - once[0]


@pytest.mark.parametrize(
    ("labels", "defined"),
    [
        (["a", "b", "c", "d", "e", "f"], True),
        (["a", "b", "c", "d", "e"], False),
        (["a", "b", "c", "d", "e", "e", "d", "c", "b", "a"], False),
        ([], False),
    ],
)
def test_no_interval_from_fewer_than_six_subjects(labels: list[str], defined: bool) -> None:
    found = bootstrap_interval(list(range(len(labels))), labels)
    assert [math.isnan(bound) for bound in found] == [not defined] * 2
