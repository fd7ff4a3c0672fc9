"""Dice by distance from the prompted slice, in slices and in millimetres."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from volprompt.tables.bootstrap import FEWEST, bootstrap_percentiles, subjects_of, volume_draws

COLUMNS_BY_SLICE = ("volumes", "groups", "dice", "low", "high", "median")
COLUMNS_BY_MM = tuple(f"{name}_by_mm" for name in COLUMNS_BY_SLICE)
DECAY_COLUMNS = [
    *("model", "scheme", "structure", "direction", "distance", *COLUMNS_BY_SLICE),
    *("distance_mm", "bin_mm", "slice_mm", *COLUMNS_BY_MM),
]
# Spacings that differ by less are the same: files round them differently.
SAME_SPACING = 1e-3


class SliceSize(NamedTuple):
    """The slices of a volume: millimetres from one to the next, and square millimetres of a pixel."""

    step_mm: float
    pixel_mm2: float


def slice_sizes(volumes: pd.DataFrame) -> dict[str, SliceSize]:
    """Return the size of the slices of every volume that has a grid. volumes: the volume tables of all shards."""
    known = volumes[volumes["spacing"].notna()].set_index("volume")["spacing"]
    spacings = {str(name): np.asarray(of, float) for name, of in known.items()}
    return {name: SliceSize(float(of[0]), float(of[1] * of[2])) for name, of in spacings.items()}


def decay(
    slices: pd.DataFrame, sizes: Mapping[str, SliceSize], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return the Dice by distance from the prompted slice, in slices and in millimetres.

    slices: rows of the slice tables; those without `distance`, which belong to image schemes, are left out.
    sizes: of the slices of every volume in `slices`.
    groups: the group (subject) of each volume.

    There is one row per model, scheme, structure, direction and distance. Directions are `prompted` (distance 0),
    `forward` and `reverse` (from 1 on). `volumes` counts the volumes with a predicted or a reference pixel at that
    distance; distances without any have no row. `dice` is 2 x sum of intersections / (sum predicted + sum reference)
    over the volumes, with the 95 % percentile-bootstrap interval, NaN for fewer than FEWEST subjects. `median` is the
    median of the volumes' Dice at that distance; of a volume with several prompted slices, their slices are pooled.

    The columns `_by_mm` say the same of slices in a bin of millimetres, with areas in square millimetres in place of
    pixels. Bins are `bin_mm` wide, the largest slice spacing of the volumes in `slices`: narrower ones would leave out
    in turn the volumes with thick slices, and the Dice would go up and down with them. The row of distance k has the
    bin around `distance_mm`, k bins away, see `_bins`. `slice_mm` is the spacing where all these volumes share it, so
    that bins are slices; else NaN. A row that one of the two has no pixel for has 0 volumes there.
    """
    tracked = slices[slices["distance"].notna()]
    steps = [sizes[volume].step_mm for volume in tracked["volume"].unique()]
    width = round(max(steps), 6) if steps else float("nan")
    shared = bool(np.allclose(steps, width, rtol=SAME_SPACING))
    widths = {"bin_mm": width, "slice_mm": width if shared else float("nan")}
    rows: list[dict[str, Any]] = []
    for (model, scheme, structure), chosen in tracked.groupby(["model", "scheme", "structure"], sort=False):
        named = {"model": model, "scheme": scheme, "structure": structure}
        signed = chosen["distance"].to_numpy(dtype=int)
        counts = chosen[["intersection", "predicted", "reference"]].to_numpy(dtype=float)
        volumes = chosen["volume"].to_numpy(dtype=str)
        names, row = np.unique(volumes, return_inverse=True)
        step, pixel = np.array([sizes[name] for name in names])[row].T
        by_slice = _by_distance(volumes, signed, counts, groups)
        by_mm = _by_distance(volumes, _bins(signed, step, width), counts * pixel[:, None], groups)
        for distance in _outwards(by_slice.keys() | by_mm.keys()):
            rows.append(
                {
                    **named,
                    "direction": "prompted" if distance == 0 else "forward" if distance > 0 else "reverse",
                    "distance": abs(distance),
                    **dict(zip(COLUMNS_BY_SLICE, by_slice.get(distance, NOTHING), strict=True)),
                    "distance_mm": round(abs(distance) * width, 6),
                    **widths,
                    **dict(zip(COLUMNS_BY_MM, by_mm.get(distance, NOTHING), strict=True)),
                }
            )
    return pd.DataFrame(rows, columns=DECAY_COLUMNS)


class _Point(NamedTuple):
    """The Dice at a distance, see `decay`."""

    volumes: int
    groups: int
    dice: float
    low: float
    high: float
    median: float


NOTHING = _Point(0, 0, *[float("nan")] * 4)


def _bins(signed: np.ndarray, step_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """Return the bin of every slice, negative before the prompted one: int (slices,).

    signed: distances in slices; step_mm: the spacing of each one's volume; width_mm: of a bin.

    Bin 0 holds prompted slices alone, bin k the slices from (k - 1/2) up to (k + 1/2) bins away, and bin 1 also those
    that are nearer.
    """
    away = (np.abs(signed) * step_mm / width_mm + 0.5).round(6)  # a slice exactly between two is in the outer one
    return np.sign(signed) * np.maximum(np.floor(away).astype(int), 1)


def _outwards(distances: Iterable[int]) -> list[int]:
    """Sort signed distances: the prompted slice, then forward, then reverse."""
    return sorted(distances, key=lambda distance: (distance < 0, abs(distance)))


def _by_distance(
    names: np.ndarray, signed: np.ndarray, sizes: np.ndarray, groups: Mapping[str, str] | None
) -> dict[int, _Point]:
    """Return the Dice at every signed distance that has a pixel.

    names: the volume of each slice; signed: its distance; sizes: float (slices, 3), intersection, predicted and
    reference, in pixels or square millimetres; groups: the group (subject) of each volume.
    """
    volumes, row = np.unique(names, return_inverse=True)
    first = int(signed.min())
    shape = (len(volumes), int(signed.max()) - first + 1)
    intersection, total = np.zeros(shape), np.zeros(shape)
    place = (row, signed - first)  # a volume can have several slices at one place
    np.add.at(intersection, place, sizes[:, 0])
    np.add.at(total, place, sizes[:, 1:].sum(axis=1))
    subjects = np.array(subjects_of(list(volumes), groups))
    counts = volume_draws(list(subjects)).astype(float)
    pooled = _divide(2 * intersection.sum(axis=0), total.sum(axis=0))
    resampled = _divide(2 * counts @ intersection, counts @ total)
    single = _divide(2 * intersection, total)
    found = {}
    for column in np.flatnonzero((total > 0).any(axis=0)):
        defined = total[:, column] > 0
        low = high = float("nan")
        groups_here = len(set(subjects[defined]))
        if groups_here >= FEWEST:
            low, high = np.nanpercentile(resampled[:, column], bootstrap_percentiles(groups_here))
        median = float(np.median(single[defined, column]))
        found[int(column) + first] = _Point(int(defined.sum()), groups_here, pooled[column], low, high, median)
    return found


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, NaN for 0 / 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
