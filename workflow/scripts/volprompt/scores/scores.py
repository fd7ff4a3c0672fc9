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

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.columns import SCORED_TOGETHER
from volprompt.files import read_table, write_table
from volprompt.identity import NO_SETTINGS, digest_of_intact, write_identity
from volprompt.logs import Progress
from volprompt.scores.surfaces import Gap, Surface, surface_of
from volprompt.segmentation.masks import mask_path, read_mask
from volprompt.volumes.converted import grid_of_row, read_reference, read_volume_table
from volprompt.volumes.references import structure_mask

COLUMNS = {
    "experiment": "string",
    "model": "string",
    "scheme": "string",
    "volume": "string",
    "structure": "string",
    "dice": "float64",
    "nsd": "float64",
    "hd95_mm": "float64",
    "assd_mm": "float64",
    "volume_mm3": "float64",
    "reference_mm3": "float64",
    "volume_error": "float64",
    "over_propagation": "float64",
    "dice_where_present": "float64",
    "dice_prompted": "float64",
    "status": "string",
}
SLICE_COLUMNS = {
    "experiment": "string",
    "model": "string",
    "scheme": "string",
    "volume": "string",
    "structure": "string",
    "slice": "int32",
    "distance": "Int32",
    "intersection": "int64",
    "predicted": "int64",
    "reference": "int64",
}
UNION = "union"
# What became of a structure in a volume, beside `ok` and, for all of a volume, `failed` and `no_reference`.
ABSENT, NO_PROMPT, LEFT_OUT = "absent", "no_prompt", "left_out"


class Reference:
    """The reference masks of a volume and their surfaces, computed once for all models and schemes.

    masks: bool (slice, y, x) by structure.
    spacing: millimetres along these axes.
    ignored: bool (slice, y, x), the voxels that no score counts, as if they were not there; None for none.
    """

    def __init__(
        self, masks: Mapping[str, np.ndarray], spacing: Sequence[float], ignored: np.ndarray | None = None
    ) -> None:
        self.masks = masks
        self.spacing = spacing
        self.ignored = ignored

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
        return surface_of(mask, self.spacing, self.ignored)


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


def surface_scores(gap: Gap, tolerance_mm: float) -> dict[str, float]:
    """Return NSD at a tolerance in millimetres, HD95 and ASSD."""
    return {"nsd": gap.nsd(tolerance_mm), "hd95_mm": gap.hausdorff_mm(0.95), "assd_mm": gap.assd_mm()}


def score_volume(
    predicted: Mapping[str, np.ndarray],
    reference: Reference,
    tolerance_mm: float,
    prompted: Mapping[str, Sequence[int]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the masks of one volume.

    predicted: bool (slice, y, x) by structure; a structure that is lacking is not scored.
    reference: the reference masks.
    tolerance_mm: of the NSD.
    prompted: indices of the slices on which a video scheme prompted each structure; None for an image scheme.

    Returns the scores and the pixel counts of every structure's slices. The scores have one row per structure with a
    mask, and where all have one a row each for `combined` (the voxels and surfaces of all structures pooled, a
    structure's compared with the same structure's), `union` (all structures merged into one mask) and `mean` (of the
    structures' defined values): over other structures they would be other scores.
    """
    voxel_mm3 = float(np.prod(reference.spacing))
    slices, gaps, rows = [], {}, {}
    counted = {name: reference.counted(predicted[name]) for name in reference.masks if name in predicted}
    for name in counted:
        mask = reference.masks[name]
        counts = slice_counts(counted[name], mask, (prompted or {}).get(name, ()))
        slices.append(counts.assign(structure=name))
        gaps[name] = Gap.between(reference.surface_of(counted[name]), reference.surfaces[name])
        rows[name] = overlap(counts, voxel_mm3) | surface_scores(gaps[name], tolerance_mm)
    of_structures = pd.DataFrame(rows.values())
    all_slices = pd.concat(slices, ignore_index=True)
    if len(counted) < len(reference.masks):
        return pd.DataFrame([{"structure": name, **row} for name, row in rows.items()]), all_slices
    rows["combined"] = overlap(all_slices, voxel_mm3) | surface_scores(Gap.of_all(list(gaps.values())), tolerance_mm)
    merged = np.logical_or.reduce(list(counted.values()))
    gap = Gap.between(reference.surface_of(merged), reference.surfaces[UNION])
    rows[UNION] = overlap(slice_counts(merged, reference.union), voxel_mm3) | surface_scores(gap, tolerance_mm)
    rows["mean"] = {name: float(of_structures[name].mean()) for name in ("dice", "nsd", "hd95_mm", "assd_mm")}
    return pd.DataFrame([{"structure": name, **row} for name, row in rows.items()]), all_slices


def score_shard(
    *,
    volumes: str | Path,
    masks: str | Path,
    experiment: str,
    model: str,
    schemes: Mapping[str, str],
    labels: Mapping[str, Sequence[int]],
    tolerance_mm: float,
    scores: str | Path,
    slices: str | Path,
    ignored: Sequence[int] = (),
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the score table and the slice table of one experiment, model and shard, and their identity.

    volumes: folder of the converted shard.
    masks: folder of the masks and their run table.
    experiment, model: names, for the tables.
    schemes: the predictor of each scheme, `image` or `video`.
    labels: label numbers by scored structure.
    tolerance_mm: of the NSD.
    scores, slices: the tables to write.
    ignored: label numbers of voxels that no score counts.
    identity: the settings that reach the scores.

    Rows without a score keep a status that says why, see `_statuses`. Raises DamagedResult if masks or volumes are not
    those that were made.
    """
    made_from = {"volumes": digest_of_intact(volumes), "masks": digest_of_intact(masks)}
    score_table, slice_table = score_masks(volumes, masks, (experiment, model), schemes, labels, tolerance_mm, ignored)
    metadata = {
        "tool": f"volprompt {__version__}",
        "method_version": str(METHOD_VERSION["score"]),
        "surface_areas": f"surface-distance {version('surface-distance')}",
        "surface_tolerance_mm": str(tolerance_mm),
    }
    write_table(score_table, scores, metadata)
    write_table(slice_table, slices, metadata)
    write_identity(scores, identity, made_from, [Path(scores), Path(slices)])


def score_masks(
    volumes: str | Path,
    masks: str | Path,
    job: tuple[str, str],
    schemes: Mapping[str, str],
    labels: Mapping[str, Sequence[int]],
    tolerance_mm: float,
    ignored: Sequence[int] = (),
    only: Collection[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the score table and the slice table of a shard's masks.

    job: experiment and model, for the tables.
    only: names of the volumes to score; None for all of the shard.

    The other arguments as in `score_shard`.
    """
    runs = read_table(Path(masks) / "run.parquet")
    done = {(run.volume, run.scheme): run for run in runs[runs["status"] == "ok"].itertuples()}
    table = read_volume_table(volumes)
    rows = [row for row in table.itertuples() if only is None or row.volume in only]
    progress = Progress(len(rows))
    scored, sliced = [], []
    for row in rows:
        reference = _read_reference_masks(volumes, row, labels, ignored)
        for scheme, predictor in schemes.items():
            named = {"experiment": job[0], "model": job[1], "scheme": scheme, "volume": row.volume}
            run = done.get((row.volume, scheme))
            statuses = _statuses(run, list(labels), reference is not None)
            rows_here = pd.DataFrame({"structure": statuses.keys(), "status": statuses.values()}).assign(**named)
            segmented = [name for name in labels if statuses[name] in ("ok", ABSENT)]
            if run is not None and reference is not None and segmented:
                grid = grid_of_row(row)
                predicted = {name: read_mask(mask_path(masks, scheme, row.volume, name), grid) for name in segmented}
                prompted = json.loads(run.prompted_slices) if predictor == "video" else None
                volume_scores, counts = score_volume(predicted, reference, tolerance_mm, prompted)
                rows_here = rows_here.merge(volume_scores, how="left", on="structure")
                sliced.append(counts.assign(**named))
            scored.append(rows_here)
        progress.step(row.volume, f"{len(schemes)} schemes scored" if reference is not None else "no reference")
    return _join_tables(scored, COLUMNS), _join_tables(sliced, SLICE_COLUMNS)


def _read_reference_masks(
    volumes: str | Path, row: Any, labels: Mapping[str, Sequence[int]], ignored: Sequence[int]
) -> Reference | None:
    """Read the reference of a volume; None if it has none or was not converted. row: of the volume table."""
    label_map = read_reference(volumes, row.volume) if row.status == "ok" else None
    if label_map is None:
        return None
    masks = {name: structure_mask(label_map, numbers) for name, numbers in labels.items()}
    unknown = structure_mask(label_map, ignored) if ignored else None
    return Reference(masks, grid_of_row(row).spacing, unknown)


def _statuses(run: Any, structures: Sequence[str], has_reference: bool) -> dict[str, str]:
    """Say of each structure, and of the scores over all, whether it is scored, or why not.

    run: the row of the run table, None for a volume without masks. `failed`: nothing was segmented. `no_prompt`: the
    structure is there and could not be prompted. `left_out`: the scheme does not segment it. `absent`: the reference
    shows nothing of it. `no_reference`: there is nothing to compare with. The scores over all structures are of those
    with a mask or absent; else they have the status of one that is not.
    """
    if run is None:
        return dict.fromkeys([*structures, *SCORED_TOGETHER], "failed")
    absent, no_prompt = json.loads(run.absent), json.loads(run.no_prompt)
    objects = {*json.loads(run.prompted_slices), *absent, *no_prompt}
    found = {}
    for name in structures:
        if name in no_prompt:
            found[name] = NO_PROMPT
        elif name not in objects:
            found[name] = LEFT_OUT
        elif not has_reference:
            found[name] = "no_reference"
        else:
            found[name] = ABSENT if name in absent else "ok"
    worst = next((status for status in (NO_PROMPT, LEFT_OUT, "no_reference") if status in found.values()), "ok")
    if worst == "ok" and "ok" not in found.values():
        worst = ABSENT
    return found | dict.fromkeys(SCORED_TOGETHER, worst)


def _join_tables(parts: Sequence[pd.DataFrame], columns: Mapping[str, str]) -> pd.DataFrame:
    """Join tables into one with exactly these columns and types."""
    empty = pd.DataFrame(columns=list(columns)).astype(dict(columns))
    whole = pd.concat([empty, *parts]) if parts else empty
    return whole.reindex(columns=list(columns)).astype(dict(columns))
