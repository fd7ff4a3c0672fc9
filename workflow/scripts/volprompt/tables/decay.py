"""Dice by distance from the prompted slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from volprompt.tables.bootstrap import FEWEST, bootstrap_percentiles, subjects_of, volume_draws

DECAY_COLUMNS = ["model", "scheme", "structure", "direction", "distance", "volumes", "dice", "low", "high", "median"]


def decay(slices: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the Dice by distance from the prompted slice, in slices.

    slices: rows of the slice tables; those without `distance`, which belong to image schemes, are left out.
    groups: the group (subject) of each volume.

    There is one row per model, scheme, structure, direction and distance. Directions are `prompted` (distance 0),
    `forward` and `reverse` (from 1 on). `volumes` counts the volumes with a predicted or a reference pixel at that
    distance; distances without any have no row. `dice` is 2 x sum of intersections / (sum predicted + sum reference)
    over the volumes, with the 95 % percentile-bootstrap interval, NaN for fewer than FEWEST subjects. `median` is the
    median of the volumes' Dice at that distance; of a volume with several prompted slices, their slices are pooled.
    """
    tracked = slices[slices["distance"].notna()]
    rows: list[dict[str, Any]] = []
    for (model, scheme, structure), chosen in tracked.groupby(["model", "scheme", "structure"], sort=False):
        named = {"model": model, "scheme": scheme, "structure": structure}
        rows += [{**named, **row} for row in _rows_by_distance(chosen, groups)]
    return pd.DataFrame(rows, columns=DECAY_COLUMNS)


def _rows_by_distance(slices: pd.DataFrame, groups: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one configuration and structure: the prompted slice, then forward, then reverse, outwards."""
    signed = slices["distance"].astype(int)
    volumes, row = np.unique(slices["volume"].to_numpy(dtype=str), return_inverse=True)
    first = int(signed.min())
    shape = (len(volumes), int(signed.max()) - first + 1)
    intersection, total = np.zeros(shape), np.zeros(shape)
    place = (row, signed.to_numpy() - first)  # a volume with several prompted slices has several slices at one place
    np.add.at(intersection, place, slices["intersection"].to_numpy())
    np.add.at(total, place, (slices["predicted"] + slices["reference"]).to_numpy())
    subjects = np.array(subjects_of(list(volumes), groups))
    counts = volume_draws(list(subjects)).astype(float)
    pooled = _divide(2 * intersection.sum(axis=0), total.sum(axis=0))
    resampled = _divide(2 * counts @ intersection, counts @ total)
    single = _divide(2 * intersection, total)
    for distance in sorted(range(first, first + shape[1]), key=lambda value: (value < 0, abs(value))):
        column = distance - first
        defined = total[:, column] > 0
        if not defined.any():
            continue
        low = high = float("nan")
        groups_here = len(set(subjects[defined]))
        if groups_here >= FEWEST:
            low, high = np.nanpercentile(resampled[:, column], bootstrap_percentiles(groups_here))
        yield {
            "direction": "prompted" if distance == 0 else "forward" if distance > 0 else "reverse",
            "distance": abs(distance),
            "volumes": int(defined.sum()),
            "dice": pooled[column],
            "low": low,
            "high": high,
            "median": np.median(single[defined, column]),
        }


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, NaN for 0 / 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
