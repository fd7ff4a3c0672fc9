"""Overlap of predicted and reference masks, per volume, structure and slice.

| masks | Dice |
|---|---|
| both have voxels | 2 x intersection / (predicted + reference) |
| one is empty | 0 |
| both are empty | undefined: NaN, left out of medians and counted |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volprompt.files import write_table
from volprompt.logs import Progress
from volprompt.masks import mask_path, read_mask
from volprompt.volumes import grid_of_row, read_reference, read_volume_table, structure_mask

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
    "over_propagation": "float64",
    "status": "string",
}
SLICE_COLUMNS = {
    "experiment": "string",
    "model": "string",
    "scheme": "string",
    "volume": "string",
    "structure": "string",
    "slice": "int32",
    "intersection": "int64",
    "predicted": "int64",
    "reference": "int64",
}


def dice(intersection: float, predicted: float, reference: float) -> float:
    """Dice coefficient of two masks from their sizes (Dice 1945); see the module's table for empty masks."""
    total = predicted + reference
    return 2 * intersection / total if total else float("nan")


def slice_counts(predicted: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
    """Pixels of each slice: intersection, predicted, reference. Masks: bool (slice, y, x)."""
    counts = {
        "intersection": (predicted & reference).sum(axis=(1, 2)),
        "predicted": predicted.sum(axis=(1, 2)),
        "reference": reference.sum(axis=(1, 2)),
    }
    return pd.DataFrame({"slice": np.arange(len(predicted)), **counts})


def overlap(counts: pd.DataFrame, voxel_mm3: float) -> dict[str, float]:
    """Scores from the pixel counts of slices; over several structures, of all their slices taken together.

    over_propagation: predicted voxels on slices without reference, as a share of the reference's voxels.
    """
    intersection, predicted, reference = (int(counts[key].sum()) for key in ("intersection", "predicted", "reference"))
    astray = int(counts.loc[counts["reference"] == 0, "predicted"].sum())
    return {
        "dice": dice(intersection, predicted, reference),
        "volume_mm3": predicted * voxel_mm3,
        "reference_mm3": reference * voxel_mm3,
        "over_propagation": astray / reference if reference else float("nan"),
    }


def score_volume(
    predicted: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], spacing: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score one volume's masks, bool (slice, y, x) by structure; spacing in millimetres.

    Returns one row per structure and for `combined` (one Dice over all structures' voxels taken together, each counted
    for its own structure), `union` (the masks merged before) and `mean` (of the defined Dice values), and the rows of
    every structure's slices.
    """
    voxel_mm3 = float(np.prod(spacing))
    counts = {name: slice_counts(predicted[name], reference[name]) for name in reference}
    rows = {name: overlap(table, voxel_mm3) for name, table in counts.items()}
    single = np.array([row["dice"] for row in rows.values()])
    slices = pd.concat([table.assign(structure=name) for name, table in counts.items()], ignore_index=True)
    rows["combined"] = overlap(slices, voxel_mm3)
    merged = slice_counts(_union(predicted, reference), _union(reference, reference))
    rows["union"] = overlap(merged, voxel_mm3)
    defined = single[~np.isnan(single)]
    rows["mean"] = {"dice": float(defined.mean()) if len(defined) else float("nan")}
    return pd.DataFrame([{"structure": name, **row} for name, row in rows.items()]), slices


def _union(masks: Mapping[str, np.ndarray], names: Mapping[str, Any]) -> np.ndarray:
    return np.logical_or.reduce([masks[name] for name in names])


def score_shard(
    *,
    volumes: str | Path,
    masks: str | Path,
    experiment: str,
    model: str,
    schemes: Sequence[str],
    structures: Mapping[str, Sequence[int]],
    scores: str | Path,
    slices: str | Path,
) -> None:
    """Write the score table and the slice table of one experiment, model and shard.

    structures: label numbers of the scored ones. A volume without masks keeps its rows with status `failed`, one
    without reference with `no_reference`; their scores are NaN.
    """
    runs = pd.read_parquet(Path(masks) / "run.parquet")
    done = set(zip(runs.loc[runs["status"] == "ok", "volume"], runs.loc[runs["status"] == "ok", "scheme"], strict=True))
    table = read_volume_table(volumes)
    progress = Progress(len(table))
    scored, sliced = [], []
    for row in table.itertuples():
        reference = _reference(volumes, row, structures)
        for scheme in schemes:
            named = {"experiment": experiment, "model": model, "scheme": scheme, "volume": row.volume}
            if (row.volume, scheme) not in done or reference is None:
                status = "no_reference" if (row.volume, scheme) in done else "failed"
                scored.append(_without_score(structures).assign(**named, status=status))
                continue
            grid = grid_of_row(row)
            predicted = {name: read_mask(mask_path(masks, scheme, row.volume, name), grid) for name in structures}
            found, counts = score_volume(predicted, reference, grid.spacing)
            scored.append(found.assign(**named, status="ok"))
            sliced.append(counts.assign(**named))
        progress.step(row.volume, f"{len(schemes)} schemes scored" if reference is not None else "no reference")
    write_table(_table(scored, COLUMNS), scores)
    write_table(_table(sliced, SLICE_COLUMNS), slices)


def _reference(volumes: str | Path, row: Any, structures: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray] | None:
    labels = read_reference(volumes, row.volume) if row.status == "ok" else None
    if labels is None:
        return None
    return {name: structure_mask(labels, numbers) for name, numbers in structures.items()}


def _without_score(structures: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"structure": [*structures, "combined", "union", "mean"]})


def _table(parts: Sequence[pd.DataFrame], columns: Mapping[str, str]) -> pd.DataFrame:
    """One table with exactly these columns and types."""
    empty = pd.DataFrame(columns=list(columns)).astype(dict(columns))
    whole = pd.concat([empty, *parts]) if parts else empty
    return whole.reindex(columns=list(columns)).astype(dict(columns))
