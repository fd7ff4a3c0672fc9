"""Scores of predicted against reference masks, per volume, structure and slice, in millimetres.

The scores of empty masks:

| masks | Dice, NSD | HD95, ASSD | volume error |
|---|---|---|---|
| both have voxels | as defined | as defined | predicted / reference - 1 |
| none predicted | 0 | infinite | -1 |
| no reference | 0 | infinite | NaN |
| both empty | NaN | NaN | NaN |

NaN means undefined: left out of medians and counted. An infinite distance counts as the largest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from volprompt.scores.surfaces import Border, Gap, Surface, pooled_nsd, surface_of
from volprompt.scores.tolerance import Tolerance, shared_tolerance, tolerance_of

UNION = "union"


class Reference:
    """The reference masks of a volume and their surfaces, computed once for all models and schemes.

    masks: bool (slice, y, x) by structure.
    spacing: millimetres along these axes.
    ignored: bool (slice, y, x), the voxels that no score counts, as if they were not there; None for none.
    border: whether the volume's border is a surface of masks that reach it, see `surface_of`.
    """

    def __init__(
        self,
        masks: Mapping[str, np.ndarray],
        spacing: Sequence[float],
        ignored: np.ndarray | None = None,
        border: Border = "count",
    ) -> None:
        self.masks = masks
        self.spacing = spacing
        self.ignored = ignored
        self.border = border

    @cached_property
    def union(self) -> np.ndarray:
        """All structures as one mask: bool (slice, y, x)."""
        return np.logical_or.reduce(list(self.masks.values()))

    @cached_property
    def surfaces(self) -> dict[str, Surface]:
        """Surfaces by structure, and that of the union."""
        return {name: self.surface_of(mask) for name, mask in [*self.masks.items(), (UNION, self.union)]}

    def counted(self, predicted: np.ndarray) -> np.ndarray:
        """Return the voxels of a mask that scores count: bool (slice, y, x)."""
        return predicted if self.ignored is None else predicted & ~self.ignored

    def surface_of(self, mask: np.ndarray) -> Surface:
        """Return the surface of a mask without ignored voxels."""
        return surface_of(mask, self.spacing, self.ignored, self.border)


def dice(intersection: float, predicted: float, reference: float) -> float:
    """Return the Dice coefficient of two masks from their sizes (Dice 1945), NaN for two empty masks."""
    total = predicted + reference
    return 2 * intersection / total if total else float("nan")


def slice_counts(predicted: np.ndarray, reference: np.ndarray, prompted: Sequence[int] = ()) -> pd.DataFrame:
    """Count the pixels of every slice.

    predicted, reference: bool (slice, y, x).
    prompted: indices of the prompted slices.

    Returns one row per slice: slice, distance, intersection, predicted, reference. `distance` is the number of slices
    from the nearest prompted one, negative before it, and missing if no slice is prompted.
    """
    index = np.arange(len(predicted))
    distance = pd.array([pd.NA] * len(predicted), dtype="Int32")
    if len(prompted):
        away = index[:, None] - np.asarray(prompted)[None]
        distance = pd.array(away[index, np.abs(away).argmin(axis=1)], dtype="Int32")
    counts = {
        "intersection": np.count_nonzero(predicted & reference, axis=(1, 2)),
        "predicted": np.count_nonzero(predicted, axis=(1, 2)),
        "reference": np.count_nonzero(reference, axis=(1, 2)),
    }
    return pd.DataFrame({"slice": index, "distance": distance, **counts})


def overlap(counts: pd.DataFrame, voxel_mm3: float) -> dict[str, float]:
    """Return the scores that follow from the pixel counts of slices.

    counts: rows of `slice_counts`, of one structure or of several.
    voxel_mm3: volume of a voxel, cubic millimetres.

    `over_propagation` is the number of predicted voxels on slices without reference, as a share of the reference's
    voxels; `dice_where_present` is the Dice over the slices with reference, and `dice_prompted` over the prompted ones.
    """
    predicted, reference = int(counts["predicted"].sum()), int(counts["reference"].sum())
    present = counts["reference"] > 0
    astray = int(counts.loc[~present, "predicted"].sum())
    return {
        "dice": _dice_of_counts(counts),
        "volume_mm3": predicted * voxel_mm3,
        "reference_mm3": reference * voxel_mm3,
        "volume_error": predicted / reference - 1 if reference else float("nan"),
        "over_propagation": astray / reference if reference else float("nan"),
        "dice_where_present": _dice_of_counts(counts[present]),
        "dice_prompted": _dice_of_counts(counts[(counts["distance"] == 0).fillna(False)]),
    }


def _dice_of_counts(counts: pd.DataFrame) -> float:
    return dice(*(int(counts[key].sum()) for key in ("intersection", "predicted", "reference")))


def surface_scores(gaps: Sequence[tuple[Gap, float]]) -> dict[str, float]:
    """Return NSD, HD95 and ASSD of one structure, or of several together, and the tolerance of the NSD.

    gaps: for each structure the distances between its two surfaces, and its tolerance in millimetres. `tolerance_mm` is
        NaN where they have several.
    """
    gap = Gap.of_all([gap for gap, _ in gaps])
    return {
        "nsd": pooled_nsd(gaps),
        "hd95_mm": gap.hausdorff_mm(0.95),
        "assd_mm": gap.assd_mm(),
        "tolerance_mm": shared_tolerance(tolerance_mm for _, tolerance_mm in gaps),
    }


def score_volume(
    predicted: Mapping[str, np.ndarray],
    reference: Reference,
    tolerance_mm: Tolerance,
    prompted: Mapping[str, Sequence[int]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the masks of one volume.

    predicted: bool (slice, y, x) by structure; a structure that is lacking is not scored.
    reference: the reference masks.
    tolerance_mm: of the NSD, for all structures or by structure.
    prompted: indices of the slices on which each structure was prompted; None for a scheme that prompts every slice.

    Returns the scores and the pixel counts of every structure's slices. The scores have one row per structure with a
    mask, and where all have one a row each for `combined` (the voxels and surfaces of all structures pooled, a
    structure's compared with the same structure's), `union` (all structures merged into one mask) and `mean` (of the
    structures' defined values): over other structures they would be other scores. Where structures have tolerances of
    their own, the NSD of `combined` takes each surface at its structure's, that of `union`, whose surface belongs to no
    structure, at the smallest.
    """
    voxel_mm3 = float(np.prod(reference.spacing))
    slices, gaps, rows = [], [], {}
    counted = {name: reference.counted(predicted[name]) for name in reference.masks if name in predicted}
    for name in counted:
        mask = reference.masks[name]
        counts = slice_counts(counted[name], mask, (prompted or {}).get(name, ()))
        slices.append(counts.assign(structure=name))
        gap = Gap.between(reference.surface_of(counted[name]), reference.surfaces[name])
        gaps.append((gap, tolerance_of(tolerance_mm, name)))
        rows[name] = overlap(counts, voxel_mm3) | surface_scores(gaps[-1:])
    of_structures = pd.DataFrame(rows.values())
    all_slices = pd.concat(slices, ignore_index=True)
    if len(counted) < len(reference.masks):
        return pd.DataFrame([{"structure": name, **row} for name, row in rows.items()]), all_slices
    rows["combined"] = overlap(all_slices, voxel_mm3) | surface_scores(gaps)
    merged = np.logical_or.reduce(list(counted.values()))
    gap = Gap.between(reference.surface_of(merged), reference.surfaces[UNION])
    strictest = min(tolerance for _, tolerance in gaps)
    rows[UNION] = overlap(slice_counts(merged, reference.union), voxel_mm3) | surface_scores([(gap, strictest)])
    rows["mean"] = {name: float(of_structures[name].mean()) for name in ("dice", "nsd", "hd95_mm", "assd_mm")}
    rows["mean"]["tolerance_mm"] = rows["combined"]["tolerance_mm"]
    return pd.DataFrame([{"structure": name, **row} for name, row in rows.items()]), all_slices
