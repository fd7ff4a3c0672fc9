"""The scores of one experiment, model and shard: tables of volumes, of slices, and of rounds of corrections."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from volprompt import METHOD_VERSION, __version__
from volprompt.columns import SCORE_COLUMNS, SCORED_TOGETHER
from volprompt.files import join_tables, read_table, write_table
from volprompt.identity import NO_SETTINGS, digest_of_intact, write_identity
from volprompt.logs import Progress
from volprompt.scores.rounds import ROUND_COLUMNS, score_rounds
from volprompt.scores.scores import Reference, score_volume
from volprompt.scores.surfaces import Border
from volprompt.scores.tolerance import Tolerance
from volprompt.segmentation.masks import mask_path, read_mask
from volprompt.volumes.converted import grid_of_row, read_reference, read_volume_table
from volprompt.volumes.references import structure_mask
from volprompt.words import plural

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
    "predicted_iou": "float32",
    "object_score": "float32",
}
# What became of a structure in a volume, beside `ok` and, for all of a volume, `failed`.
ABSENT, NO_PROMPT, LEFT_OUT, NO_REFERENCE = "absent", "no_prompt", "left_out", "no_reference"


def score_shard(
    *,
    volumes: str | Path,
    masks: str | Path,
    experiment: str,
    model: str,
    schemes: Mapping[str, bool],
    labels: Mapping[str, Sequence[int]],
    tolerance_mm: Tolerance,
    scores: str | Path,
    slices: str | Path,
    rounds: str | Path,
    ignored: Sequence[int] = (),
    border: Border = "count",
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the tables of scores, slices and rounds of one experiment, model and shard, and their identity.

    volumes: folder of the converted shard.
    masks: folder of the masks and their run table.
    experiment, model: names, for the tables.
    schemes: of each scheme whether it prompts every slice.
    labels: label numbers by scored structure.
    tolerance_mm: of the NSD, for all structures or by structure.
    scores, slices, rounds: the tables to write.
    ignored: label numbers of voxels that no score counts.
    border: whether the volume's border is a surface of masks that reach it.
    identity: the settings that reach the scores.

    Rows without a score keep a status that says why, see `_statuses`. Raises DamagedResult if masks or volumes are not
    those that were made.
    """
    made_from = {"volumes": digest_of_intact(volumes), "masks": digest_of_intact(masks)}
    found = score_masks(volumes, masks, (experiment, model), schemes, labels, tolerance_mm, ignored, border)
    metadata = {
        "tool": f"volprompt {__version__}",
        "method_version": str(METHOD_VERSION["score"]),
        "surface_areas": f"surface-distance {version('surface-distance')}",
        "surface_tolerance_mm": json.dumps(tolerance_mm, sort_keys=True),
        "border": border,
    }
    files = [Path(scores), Path(slices), Path(rounds)]
    for table, file in zip(found, files, strict=True):
        write_table(table, file, metadata)
    write_identity(scores, identity, made_from, files)


class ShardScores(NamedTuple):
    """The tables of scores, slices and rounds of a shard."""

    scores: pd.DataFrame
    slices: pd.DataFrame
    rounds: pd.DataFrame


def score_masks(
    volumes: str | Path,
    masks: str | Path,
    job: tuple[str, str],
    schemes: Mapping[str, bool],
    labels: Mapping[str, Sequence[int]],
    tolerance_mm: Tolerance,
    ignored: Sequence[int] = (),
    border: Border = "count",
    only: Collection[str] | None = None,
) -> ShardScores:
    """Score a shard's masks.

    job: experiment and model, for the tables.
    only: names of the volumes to score; None for all of the shard.

    The other arguments as in `score_shard`.
    """
    runs = read_table(Path(masks) / "run.parquet")
    clicks = read_table(Path(masks) / "corrections.parquet")
    confidence = read_table(Path(masks) / "confidence.parquet")
    done = {(run.volume, run.scheme): run for run in runs[runs["status"] == "ok"].itertuples()}
    rows = [row for row in read_volume_table(volumes).itertuples() if only is None or row.volume in only]
    progress = Progress(len(rows))
    parts = ShardParts()
    for row in rows:
        reference = _read_reference_masks(volumes, row, labels, ignored, border)
        for scheme, prompts_every_slice in schemes.items():
            run = done.get((row.volume, scheme))
            named = {"experiment": job[0], "model": job[1], "scheme": scheme, "volume": row.volume}
            statuses = _statuses(run, list(labels), reference is not None)
            scored = pd.DataFrame({"structure": statuses.keys(), "status": statuses.values()})
            segmented = [name for name in labels if statuses[name] in ("ok", ABSENT, NO_REFERENCE)]
            if run is not None and segmented:
                grid = grid_of_row(row)
                predicted = {name: read_mask(mask_path(masks, scheme, row.volume, name), grid) for name in segmented}
                sure = confidence[(confidence["volume"] == row.volume) & (confidence["scheme"] == scheme)]
                scored = scored.merge(mean_confidence(sure, predicted), how="left", on="structure")
                if reference is not None:
                    prompted = None if prompts_every_slice else json.loads(run.prompted_slices)
                    volume_scores, counts = score_volume(predicted, reference, tolerance_mm, prompted)
                    scored = scored.merge(volume_scores, how="left", on="structure")
                    sure_slices = sure[["structure", "slice", "predicted_iou", "object_score"]]
                    parts.slices.append(counts.merge(sure_slices, how="left").assign(**named))
                    of_rounds = score_rounds(masks, run, clicks, grid, reference, segmented, tolerance_mm)
                    parts.rounds.append(of_rounds.assign(**named))
            parts.scores.append(scored.assign(**named))
        progress.step(
            row.volume, f"{plural(len(schemes), 'scheme')} scored" if reference is not None else "no reference"
        )
    return ShardScores(
        join_tables(parts.scores, SCORE_COLUMNS),
        join_tables(parts.slices, SLICE_COLUMNS),
        join_tables(parts.rounds, ROUND_COLUMNS),
    )


@dataclass
class ShardParts:
    """The tables of a shard's volumes under each scheme, to be joined."""

    scores: list[pd.DataFrame] = field(default_factory=list)
    slices: list[pd.DataFrame] = field(default_factory=list)
    rounds: list[pd.DataFrame] = field(default_factory=list)


def mean_confidence(sure: pd.DataFrame, predicted: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return how sure the model is of a volume: structure, predicted_iou and object_score.

    sure: the volume's rows of the table of confidence, under one scheme.
    predicted: masks, bool (slice, y, x), by structure.

    Each is the mean over the slices on which a mask has voxels, or over all that were decoded where it has none;
    `combined` is the mean over all structures' slices.
    """
    kept = []
    for name, mask in predicted.items():
        rows = sure[sure["structure"] == name]
        with_voxels = rows[np.isin(rows["slice"], np.flatnonzero(mask.any(axis=(1, 2))))]
        kept.append(with_voxels if len(with_voxels) else rows)
    chosen = pd.concat(kept)
    chosen = pd.concat([chosen, chosen.assign(structure="combined")])
    return chosen.groupby("structure", sort=False, as_index=False)[["predicted_iou", "object_score"]].mean()


def _read_reference_masks(
    volumes: str | Path, row: Any, labels: Mapping[str, Sequence[int]], ignored: Sequence[int], border: Border
) -> Reference | None:
    """Read the reference of a volume; None if it has none or was not converted. row: of the volume table."""
    label_map = read_reference(volumes, row.volume) if row.status == "ok" else None
    if label_map is None:
        return None
    masks = {name: structure_mask(label_map, numbers) for name, numbers in labels.items()}
    unknown = structure_mask(label_map, ignored) if ignored else None
    return Reference(masks, grid_of_row(row).spacing, unknown, border)


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
            found[name] = NO_REFERENCE
        else:
            found[name] = ABSENT if name in absent else "ok"
    worst = next((status for status in (NO_PROMPT, LEFT_OUT, NO_REFERENCE) if status in found.values()), "ok")
    if worst == "ok" and "ok" not in found.values():
        worst = ABSENT
    return found | dict.fromkeys(SCORED_TOGETHER, worst)
