"""The rounds of corrections of the volumes in the viewer: read from the results, and as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volprompt.files import read_table
from volprompt.numbers import KINDS
from volprompt.report.packing import encode_mask
from volprompt.report.pictures import present_structures, shown_mask, slice_dices
from volprompt.report.shards import ShardFiles
from volprompt.report.shown import Configuration, Region, ShownRounds, ShownVolume
from volprompt.segmentation.masks import read_rounds, rounds_path
from volprompt.volumes.grid import Grid


def read_shown_rounds(
    shard: ShardFiles, configuration: Configuration, volume: str, grid: Grid, predicted: Mapping[str, np.ndarray]
) -> ShownRounds | None:
    """Read the rounds of a volume under one configuration; None if nothing was corrected.

    shard: where the files are.
    configuration: experiment, model and scheme.
    volume: its name.
    grid: of the volume.
    predicted: its masks of the last round, as bits by structure; a structure with fewer rounds than another keeps its
        mask in the later ones.
    """
    experiment, model, scheme = configuration
    folder = Path(shard.masks[experiment, model])
    paths = {name: rounds_path(folder, scheme, volume, name) for name in predicted}
    bits = {name: np.packbits(read_rounds(path, grid), axis=-1) for name, path in paths.items() if path.exists()}
    last = max(map(len, bits.values()), default=1) - 1
    if not last:
        return None
    masks = [
        {name: bits[name][number] if number < len(bits.get(name, ())) else predicted[name] for name in predicted}
        for number in range(last)
    ]
    clicks = read_table(folder / "corrections.parquet")
    made = clicks[(clicks["volume"] == volume) & (clicks["scheme"] == scheme)]
    scores = shard.rounds.get((experiment, model))
    dices = _defined_dices(read_table(scores) if scores else None, scheme, volume, last)
    return ShownRounds(masks, dices, made)


def _defined_dices(table: pd.DataFrame | None, scheme: str, volume: str, last: int) -> list[dict[str, float]]:
    """Return the defined Dice values of each round before the last one, by structure; none without a table."""
    dices: list[dict[str, float]] = [{} for _ in range(last)]
    if table is None:
        return dices
    rows = table[(table["scheme"] == scheme) & (table["volume"] == volume) & (table["round"] < last)]
    for row in rows.dropna(subset="dice").itertuples():
        dices[row.round][row.structure] = round(float(row.dice), KINDS["score"].digits)
    return dices


def encode_rounds(
    volume: ShownVolume,
    configuration: Configuration,
    names: Sequence[str],
    region: Region,
    slices: Sequence[int],
    size: tuple[int, int],
) -> dict[str, Any]:
    """Return what the rounds of corrections add to the view of a configuration, as values for JSON.

    The other arguments as in `encode_volume`; size: pixels of a shown frame (y, x). The values are:

    * `rounds`, of each round before the last one: Dice, Dice by slice and structures on every slice as in the view, and
      `changed`, per structure where its mask differs from that of the next round. Most of a mask does not change, so
      this takes a fraction of the characters of the mask;
    * `clicks` on the shown slices: round, structure's number, slice, place (x, y) and label.
    """
    rounds, predicted = volume.rounds[configuration], volume.predicted[configuration]
    index, true = list(slices), volume.counted(volume.reference)
    later = {name: shown_mask(bits, index, region, size) for name, bits in predicted.items()}
    entries: list[dict[str, Any]] = []
    for masks, dices in reversed(list(zip(rounds.masks, rounds.dices, strict=True))):
        shown = {name: shown_mask(bits, index, region, size) for name, bits in masks.items()}
        counted = volume.counted(masks)
        entries.append(
            {
                "dice": dict(dices),
                "changed": [encode_mask(shown[name] ^ later[name]) if name in shown else None for name in names],
                "present": present_structures(counted, names, slices),
                "slice_dice": slice_dices(counted, true, names, volume.scored, slices),
            }
        )
        later = shown
    clicks = rounds.clicks[rounds.clicks["slice"].isin(index)]
    return {
        "rounds": entries[::-1],
        "clicks": [
            [
                int(click.round),
                names.index(click.structure),
                int(click.slice),
                *(round(float(share), 4) for share in region.place(click.x, click.y)),
                int(click.label),
            ]
            for click in clicks.itertuples()
        ],
    }
