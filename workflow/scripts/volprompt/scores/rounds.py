"""Scores of each round of a scheme with corrections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volprompt.scores.scores import Reference, dice
from volprompt.scores.surfaces import Gap, pooled_nsd
from volprompt.scores.tolerance import Tolerance, tolerance_of
from volprompt.segmentation.masks import read_rounds, rounds_path
from volprompt.volumes.grid import Grid

ROUND_COLUMNS = {
    "experiment": "string",
    "model": "string",
    "scheme": "string",
    "volume": "string",
    "structure": "string",
    "round": "int32",
    "prompts": "int64",
    "dice": "float64",
    "nsd": "float64",
}


def score_rounds(
    masks: str | Path,
    run: Any,
    clicks: pd.DataFrame,
    grid: Grid,
    reference: Reference,
    structures: Sequence[str],
    tolerance_mm: Tolerance,
) -> pd.DataFrame:
    """Score every round of one volume under one scheme.

    masks: folder of the masks.
    run: the volume's row of the run table.
    clicks: the correction clicks of the job.
    grid: of the volume.
    reference: its reference masks.
    structures: those with a mask.
    tolerance_mm: of the NSD, for all structures or by structure.

    Returns structure, round, prompts (points, boxes, masks and clicks given by a person up to this round), dice and
    nsd: for every structure that was prompted, and for `combined` where all scored structures have a mask. A structure
    that needed fewer rounds than another keeps its last mask in the later ones. Empty for a scheme without corrections.
    """
    first = json.loads(run.prompts_of)
    made = clicks[(clicks["volume"] == run.volume) & (clicks["scheme"] == run.scheme)]
    paths = {name: rounds_path(masks, run.scheme, run.volume, name) for name in structures}
    rounds = {name: read_rounds(path, grid) for name, path in paths.items() if path.exists()}
    scored = {name: _measure(rounds[name], name, reference) for name in rounds}
    last = max(map(len, scored.values()), default=0)
    rows: list[dict[str, Any]] = []
    for number in range(last):
        given = made.loc[made["round"] <= number, "structure"].value_counts()
        counts, gaps, prompts = [], [], 0
        for name, of_rounds in scored.items():
            count, gap = of_rounds[min(number, len(of_rounds) - 1)]
            counts.append(count)
            gaps.append((gap, tolerance_of(tolerance_mm, name)))
            here = first.get(name, 0) + int(given.get(name, 0))
            prompts += here
            values = {"dice": dice(*count), "nsd": gap.nsd(tolerance_of(tolerance_mm, name))}
            rows.append({"structure": name, "round": number, "prompts": here, **values})
        if len(structures) == len(reference.masks):
            pooled = dice(*(sum(column) for column in zip(*counts, strict=True)))
            both = {"dice": pooled, "nsd": pooled_nsd(gaps)}
            rows.append({"structure": "combined", "round": number, "prompts": prompts, **both})
    return pd.DataFrame(rows)


def _measure(rounds: np.ndarray, name: str, reference: Reference) -> list[tuple[list[int], Gap]]:
    """Measure a structure's masks, bool (round, slice, y, x): voxels in common, predicted and true, and surfaces."""
    truth, found = reference.masks[name], []
    for mask in map(reference.counted, rounds):
        sizes = [int(np.count_nonzero(each)) for each in (mask & truth, mask, truth)]
        found.append((sizes, Gap.between(reference.surface_of(mask), reference.surfaces[name])))
    return found
