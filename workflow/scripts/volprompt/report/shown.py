"""A volume for the viewer, and which part of it is shown, in how many pixels and on which slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from volprompt.prompts.schemes import ObjectPrompt
from volprompt.volumes.grid import Grid

# Share of the shown structures' extent that is shown around them, along y and x; and slices before and after.
MARGIN, MARGIN_SLICES = 0.15, 2
Configuration = tuple[str, str, str]  # experiment, model, scheme


@dataclass(frozen=True)
class Level:
    """How finely a volume is shown.

    pixels: along the longer side of a frame.
    slices: largest number of slices.
    quality: of WebP.
    cells: of surfaces, along the longest side; 0 for no surfaces.
    """

    pixels: int
    slices: int
    quality: int
    cells: int


@dataclass(frozen=True)
class Region:
    """The part of a volume that is shown: first and one past the last index along slice, y and x."""

    slices: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return a place as shares of the region's sides. x, y: pixels of the frame, centres at whole numbers."""
        left, right = self.columns
        top, bottom = self.rows
        return (x + 0.5 - left) / (right - left), (y + 0.5 - top) / (bottom - top)

    def crop(self, frames: np.ndarray) -> np.ndarray:
        """Return the region's rows and columns of (slice, y, x)."""
        return frames[:, slice(*self.rows), slice(*self.columns)]


@dataclass(frozen=True)
class ShownRounds:
    """The rounds of corrections of a volume under one configuration.

    masks: of each round before the last one, by structure as bits; those of the last round are the prediction.
    dices: the defined Dice values of these rounds, by structure.
    clicks: rows of `corrections.parquet`.
    """

    masks: Sequence[Mapping[str, np.ndarray]]
    dices: Sequence[Mapping[str, float]]
    clicks: pd.DataFrame


@dataclass(frozen=True)
class ShownVolume:
    """A volume at full resolution, with everything that its configurations show.

    name: of the volume.
    grid: of the source.
    frames: uint8 (slice, y, x).
    reference: masks by structure as bits, uint8 (slice, y, ceil(x / 8)); only structures with labels.
    predicted: masks like those of the reference, by configuration.
    prompts: by scheme.
    carried: names of the schemes that prompt some slices and carry the masks on from there.
    scored: names of the scored structures.
    rounds: of the configurations with corrections.
    ignored: the voxels that no score counts, as bits like a mask; None without any.
    """

    name: str
    grid: Grid
    frames: np.ndarray
    reference: Mapping[str, np.ndarray]
    predicted: Mapping[Configuration, Mapping[str, np.ndarray]]
    prompts: Mapping[str, Sequence[ObjectPrompt]]
    carried: frozenset[str]
    scored: tuple[str, ...]
    rounds: Mapping[Configuration, ShownRounds] = field(default_factory=dict)
    ignored: np.ndarray | None = None

    def counted(self, masks: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return masks by structure, as bits, without the voxels that no score counts."""
        return masks if self.ignored is None else {name: bits & ~self.ignored for name, bits in masks.items()}


def shown_region(volume: ShownVolume) -> Region:
    """Return the box around all masks and prompts, with a margin; the whole volume if there are none.

    A correcting click is on the reference or on the mask that it corrects.
    """
    depth, height, width = volume.frames.shape
    occupied = np.zeros((depth, height, (width + 7) // 8), dtype=np.uint8)
    of_rounds = [masks for rounds in volume.rounds.values() for masks in rounds.masks]
    for masks in (volume.reference, *volume.predicted.values(), *of_rounds):
        for bits in masks.values():
            occupied |= bits
    slices = np.flatnonzero(occupied.any(axis=(1, 2))).tolist()
    rows = np.flatnonzero(occupied.any(axis=(0, 2))).tolist()
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(occupied, axis=(0, 1)), count=width)).tolist()
    every = [prompt for prompts in volume.prompts.values() for prompt in prompts]
    slices += [prompt.slice for prompt in every]
    for row, column in prompted_pixels(every, height, width):
        rows.append(row)
        columns.append(column)
    margin = round(MARGIN * max(max(side) - min(side) + 1 for side in (rows, columns))) if rows and columns else 0
    return Region(
        _around(slices, MARGIN_SLICES, depth),
        _around(rows, margin, height),
        _around(columns, margin, width),
    )


def prompted_pixels(prompts: Iterable[ObjectPrompt], height: int, width: int) -> Iterator[tuple[int, int]]:
    """Row and column of each point and of each box's corners; one outside the frame is moved to its border."""
    for prompt in prompts:
        corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        for x, y in [*prompt.points, *corners]:
            yield min(max(round(float(y)), 0), height - 1), min(max(round(float(x)), 0), width - 1)


def _around(indices: Sequence[int], margin: int, size: int) -> tuple[int, int]:
    """Return first and one past the last index of the range with a margin; the whole axis without any index."""
    if not indices:
        return 0, size
    return max(0, min(indices) - margin), min(size, max(indices) + 1 + margin)


def shown_size(height: int, width: int, spacing: Sequence[float], pixels: int) -> tuple[int, int]:
    """Return rows and columns of the shown pictures.

    height, width: pixels of the crop.
    spacing: millimetres along (y, x).
    pixels: of the longer side (in millimetres), at most.

    Pixels are square if they are coarser than the frame's. No axis gets more pixels than the frame has.
    """
    size_mm = height * spacing[0], width * spacing[1]
    pixel_mm = max(size_mm) / pixels
    rows = min(height, max(1, round(size_mm[0] / pixel_mm)))
    columns = min(width, max(1, round(size_mm[1] / pixel_mm)))
    return rows, columns


def prompted_slices(volume: ShownVolume) -> list[int]:
    """Return the slices from which schemes carry masks on, prompted or corrected, which are always shown."""
    prompted = {prompt.slice for scheme in volume.carried for prompt in volume.prompts[scheme]}
    corrected = [rounds.clicks["slice"] for key, rounds in volume.rounds.items() if key[2] in volume.carried]
    return sorted(prompted.union(*(slices.tolist() for slices in corrected)))


def shown_slices(extent: tuple[int, int], needed: Sequence[int], most: int) -> list[int]:
    """Choose evenly spaced slices, and the needed ones.

    extent: first and one past the last slice; needed: slices that have to be among them; most: their largest number,
    for which there are fewer evenly spaced ones if necessary.
    """
    first, stop = extent
    if stop - first <= most:
        return list(range(first, stop))
    even = np.rint(np.linspace(first, stop - 1, max(1, most - len(needed)))).astype(int)
    return sorted({*even.tolist(), *needed})
