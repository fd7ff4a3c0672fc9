"""Percentile bootstrap over the volumes of a study, by subject if a subject has several volumes.

A resample draws as many subjects as there are, with replacement, each with all its volumes (the cluster bootstrap:
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The draws depend on nothing but the
number of subjects, so an interval is the same on every run, and the same volumes are always resampled alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

RESAMPLES = 2000
SEED = 0
# Fewer independent values give no 95 % interval: the exact interval of a median does not exist below six, and no
# two-sided signed-rank test can fall below 0.05 (2 / 2**5 = 0.06). A bootstrap would give a number all the same, one
# that covers the median less often than it says.
FEWEST = 6


def count_subjects(volumes: Iterable[str], groups: Mapping[str, str] | None) -> int:
    """Return how many subjects the volumes are of; groups: the group (subject) of each volume that has one."""
    return len(set(subjects_of(list(volumes), groups)))


def subjects_of(volumes: Sequence[str], groups: Mapping[str, str] | None) -> list[str]:
    """Return the subject of every volume: its group, or the volume itself if it has none."""
    return [(groups or {}).get(volume) or volume for volume in volumes]


def has_repeated_subjects(subjects: Sequence[str]) -> bool:
    """Return whether a subject has more than one volume. subjects: of every volume."""
    return len(set(subjects)) < len(subjects)


@lru_cache(maxsize=4)
def subject_draws(count: int) -> np.ndarray:
    """Draw `count` subjects: how often each is in each resample, int16 (RESAMPLES, count), rows summing to `count`.

    The array is read-only, since it is kept for the next call.
    """
    chosen = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    places = chosen + np.arange(RESAMPLES)[:, None] * count
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * count).astype(np.int16).reshape(RESAMPLES, count)
    counts.flags.writeable = False
    return counts


def volume_draws(subjects: Sequence[str]) -> np.ndarray:
    """Return how often each volume is in each resample: int16 (RESAMPLES, volumes). subjects: of every volume."""
    places: dict[str, int] = {}
    index = [places.setdefault(subject, len(places)) for subject in subjects]
    counts = subject_draws(len(places))
    return counts if len(places) == len(index) else counts[:, index]


def resampled_medians(values: Sequence[float] | np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the median of every resample: float64 (resamples,).

    values: (volumes,), none of them NaN; counts: how often each is in each resample, (resamples, volumes).
    """
    sample = np.asarray(values, dtype=float)
    order = np.argsort(sample)
    ordered = sample[order]
    reached = counts[:, order].cumsum(axis=1, dtype=np.int32)
    total = reached[:, -1:]
    lower = (reached < (total + 1) // 2).sum(axis=1)
    upper = (reached < total // 2 + 1).sum(axis=1)
    return (ordered[lower] + ordered[upper]) / 2


def bootstrap_percentiles(subjects: int) -> tuple[float, float]:
    """Return the percentiles of the resampled values that enclose a value with 95 %; subjects: how many are resampled.

    The plain 2.5 and 97.5 are too narrow for few subjects, since resampled values vary less than a sample by the factor
    sqrt((n - 1) / n), and the normal distribution has shorter tails than Student's t. The expanded percentiles make up
    for both: Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015), 371-386.
    """
    low = 100 * float(stats.norm.cdf(np.sqrt(subjects / (subjects - 1)) * stats.t.ppf(0.025, subjects - 1)))
    return low, 100 - low


def bootstrap_interval(values: Sequence[float] | np.ndarray, subjects: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a median; (NaN, NaN) for fewer than FEWEST subjects.

    values: (volumes,), none of them NaN; subjects: of every volume. The percentiles are expanded, see
    `bootstrap_percentiles`.
    """
    count = len(set(subjects))
    if count < FEWEST:
        return float("nan"), float("nan")
    low, high = np.percentile(resampled_medians(values, volume_draws(subjects)), bootstrap_percentiles(count))
    return float(low), float(high)
