"""Percentile bootstrap over the volumes of a study, by subject where a subject has several volumes.

A resample draws as many subjects as there are, with replacement, each with all its volumes (the cluster bootstrap:
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The draws depend on nothing but the
number of subjects, so an interval is the same on every run, and samples of the same volumes are resampled alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
SEED = 0
# Fewer independent values give no 95 % interval: the exact interval of a median does not exist below six, and no
# two-sided signed-rank test can fall below 0.05 (2 / 2**5 = 0.06). A bootstrap would give a number all the same, one
# that covers the median far less often than it says.
FEWEST = 6


def labels_of(volumes: Sequence[str], groups: Mapping[str, str] | None) -> list[str]:
    """The group of each volume; a volume without one is a group of its own."""
    return [(groups or {}).get(volume) or volume for volume in volumes]


def are_grouped(labels: Sequence[str]) -> bool:
    """Whether a group has more than one volume."""
    return len(set(labels)) < len(labels)


@lru_cache(maxsize=4)
def draws(groups: int) -> np.ndarray:
    """How often each group is drawn in each resample: int16 (RESAMPLES, groups), rows summing to `groups`.

    Not to be written to: the array is kept for the next call.
    """
    chosen = np.random.default_rng(SEED).integers(0, groups, (RESAMPLES, groups))
    places = chosen + np.arange(RESAMPLES)[:, None] * groups
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * groups).astype(np.int16).reshape(RESAMPLES, groups)
    counts.flags.writeable = False
    return counts


def volume_draws(labels: Sequence[str]) -> np.ndarray:
    """How often each volume is in each resample: int16 (RESAMPLES, volumes); labels: the group of each volume."""
    places: dict[str, int] = {}
    index = [places.setdefault(label, len(places)) for label in labels]
    counts = draws(len(places))
    return counts if len(places) == len(index) else counts[:, index]


def resampled_medians(values: Sequence[float] | np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median of each resample: float64 (resamples,).

    values: (volumes,), none of them NaN; counts: how often each is in each resample, (resamples, volumes).
    """
    given = np.asarray(values, dtype=float)
    order = np.argsort(given)
    ordered = given[order]
    reached = counts[:, order].cumsum(axis=1, dtype=np.int32)
    total = reached[:, -1:]
    lower = (reached < (total + 1) // 2).sum(axis=1)
    upper = (reached < total // 2 + 1).sum(axis=1)
    return (ordered[lower] + ordered[upper]) / 2


def bootstrap_interval(values: Sequence[float] | np.ndarray, labels: Sequence[str]) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of a median (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13); (NaN, NaN) for fewer than FEWEST groups.

    values: (volumes,), none of them NaN; labels: the group of each volume.
    """
    if len(set(labels)) < FEWEST:
        return float("nan"), float("nan")
    low, high = np.percentile(resampled_medians(values, volume_draws(labels)), [2.5, 97.5])
    return float(low), float(high)
