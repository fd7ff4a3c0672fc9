"""A volume as the viewer gets it: what of it is shown, how finely, and all that as values for JSON.

Places on the shown crop are given as shares of its width and height, from its upper left corner: pixel x of the frame,
whose centre is at x, covers x - 0.5 to x + 0.5, so its centre lies at (x + 0.5 - left) / width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volprompt.prompts.schemes import ObjectPrompt
from volprompt.report.meshes import Mesh, surface
from volprompt.report.packing import Sheet, coded_mask, coded_surface, shrunk
from volprompt.scores.scores import dice
from volprompt.segmentation.masks import unpack_bits
from volprompt.volumes.grid import Grid

# Share of the shown structures' extent that is shown around them, along y and x; and slices before and after.
MARGIN, MARGIN_SLICES = 0.15, 2
Configuration = tuple[str, str, str]  # experiment, model, scheme


@dataclass(frozen=True)
class Level:
    """How finely a volume is shown: pixels along the longer side, slices at most, WebP's quality, and surface cells
    along the longest side (0: no surfaces)."""

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
        """A place (x, y) in pixels of the frame, pixel centres at whole numbers, as shares of the region's sides."""
        left, right = self.columns
        top, bottom = self.rows
        return (x + 0.5 - left) / (right - left), (y + 0.5 - top) / (bottom - top)

    def crop(self, frames: np.ndarray) -> np.ndarray:
        """The region's rows and columns of (slice, y, x)."""
        return frames[:, slice(*self.rows), slice(*self.columns)]


@dataclass(frozen=True)
class Shown:
    """A volume at full resolution, with all that its configurations show of it.

    frames: uint8 (slice, y, x); reference and each configuration's predicted masks by structure as bits, uint8
    (slice, y, ceil(x / 8)), the reference's only where it has labels; prompts by scheme; video: the schemes that prompt
    an object on one slice only; scored: the scored structures.
    """

    name: str
    grid: Grid
    frames: np.ndarray
    reference: Mapping[str, np.ndarray]
    predicted: Mapping[Configuration, Mapping[str, np.ndarray]]
    prompts: Mapping[str, Sequence[ObjectPrompt]]
    video: frozenset[str]
    scored: tuple[str, ...]


def shown_region(shown: Shown) -> Region:
    """The box around all masks and prompts with a margin, within the volume; the whole volume where all are empty."""
    depth, height, width = shown.frames.shape
    found = np.zeros((depth, height, (width + 7) // 8), dtype=np.uint8)
    for masks in (shown.reference, *shown.predicted.values()):
        for bits in masks.values():
            found |= bits
    slices = np.flatnonzero(found.any(axis=(1, 2))).tolist()
    rows = np.flatnonzero(found.any(axis=(0, 2))).tolist()
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(found, axis=(0, 1)), count=width)).tolist()
    for prompt in (prompt for prompts in shown.prompts.values() for prompt in prompts):
        slices.append(prompt.slice)
        corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        for x, y in [*prompt.points, *corners]:
            columns.append(min(max(round(float(x)), 0), width - 1))
            rows.append(min(max(round(float(y)), 0), height - 1))
    margin = round(MARGIN * max(max(side) - min(side) + 1 for side in (rows, columns))) if rows and columns else 0
    return Region(_around(slices, MARGIN_SLICES, depth), _around(rows, margin, height), _around(columns, margin, width))


def _around(indices: Sequence[int], margin: int, size: int) -> tuple[int, int]:
    if not indices:
        return 0, size
    return max(0, min(indices) - margin), min(size, max(indices) + 1 + margin)


def shown_size(height: int, width: int, spacing: Sequence[float], pixels: int) -> tuple[int, int]:
    """Rows and columns of the shown pictures: the longer side, in millimetres, has at most `pixels`.

    height, width: pixels of the crop; spacing: millimetres along (y, x). Pixels become square where they are coarser
    than the frame's, and no axis gets more pixels than the frame has.
    """
    size_mm = height * spacing[0], width * spacing[1]
    pixel_mm = max(size_mm) / pixels
    rows = min(height, max(1, round(size_mm[0] / pixel_mm)))
    columns = min(width, max(1, round(size_mm[1] / pixel_mm)))
    return rows, columns


def prompted_slices(shown: Shown) -> list[int]:
    """The slices that video schemes prompt: they are always among those shown."""
    return sorted({prompt.slice for scheme in shown.video for prompt in shown.prompts[scheme]})


def shown_slices(extent: tuple[int, int], needed: Sequence[int], most: int) -> list[int]:
    """At most `most` slices from first to one past the last, evenly spaced, and all that are needed among them.

    Where the even ones are too many with the needed, they are fewer.
    """
    first, stop = extent
    if stop - first <= most:
        return list(range(first, stop))
    even = np.rint(np.linspace(first, stop - 1, max(1, most - len(needed)))).astype(int)
    return sorted({*even.tolist(), *needed})


def encoded(
    shown: Shown,
    names: Sequence[str],
    region: Region,
    slices: Sequence[int],
    sheet: Sheet,
    level: Level,
) -> tuple[dict[str, Any], dict[Configuration, dict[str, Any]]]:
    """The picture of a volume and what each configuration adds to it."""
    spacing = shown.grid.spacing
    longest = max(np.ptp(side) * mm for side, mm in zip(_sides(region), spacing, strict=True))
    cell = longest / level.cells if level.cells else 0.0
    origin = [side[0] * mm for side, mm in zip(_sides(region), spacing, strict=True)]
    solid = {name: _solid(bits, spacing, cell) for name, bits in shown.reference.items()} if cell else {}
    size = sheet.size
    picture = {
        "name": shown.name,
        "depth": len(shown.frames),
        "axes": shown.grid.axes,
        "mirrored": mirrored(shown.grid.axes),
        "slices": list(slices),
        "size": list(size),
        "width_mm": round((region.columns[1] - region.columns[0]) * spacing[2], 3),
        "height_mm": round((region.rows[1] - region.rows[0]) * spacing[1], 3),
        "first": region.slices[0],
        "extent_slices": region.slices[1] - region.slices[0],
        "extent_mm": [round(float(np.ptp(side) * mm), 3) for side, mm in zip(_sides(region), spacing, strict=True)],
        "columns": sheet.columns,
        "frames": sheet.data,
        "reference": _coded_masks(shown.reference, names, slices, region, size),
        "present": _present(shown.reference, names, slices),
        "surfaces": _coded_surfaces(solid, {}, names, origin, cell),
    }
    views = {}
    for configuration, masks in shown.predicted.items():
        own = {name: _solid(bits, spacing, cell) for name, bits in masks.items()} if cell else {}
        prompts = [p for p in shown.prompts[configuration[2]] if p.slice in slices]
        views[configuration] = {
            "masks": _coded_masks(masks, names, slices, region, size),
            "present": _present(masks, names, slices),
            "surfaces": _coded_surfaces(own, solid, names, origin, cell),
            "slice_dice": slice_dices(masks, shown.reference, names, shown.scored, slices),
            "prompts": [_prompt(prompt, names, region) for prompt in prompts],
            "start": _start(prompts if configuration[2] in shown.video else [], shown.reference or masks, slices),
        }
    return picture, views


def _sides(region: Region) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return region.slices, region.rows, region.columns


def _start(prompts: Sequence[ObjectPrompt], masks: Mapping[str, np.ndarray], slices: Sequence[int]) -> int:
    """Place among the shown slices to begin with: the first prompted one (of a video scheme), else the middle one of
    those that show most of the structures."""
    prompted = sorted({prompt.slice for prompt in prompts})
    if prompted:
        return list(slices).index(prompted[0])
    count = np.sum([bits[list(slices)].any(axis=(1, 2)) for bits in masks.values()], axis=0)
    most = np.flatnonzero(count == count.max())
    return int(most[len(most) // 2])


def slice_dices(
    predicted: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    names: Sequence[str],
    scored: Sequence[str],
    slices: Sequence[int],
) -> list[list[float | None]]:
    """Dice of each shown slice at full resolution: combined over the scored structures, then of each of `names`.

    None where it is undefined, and for a structure without reference.
    """
    if not reference:
        return []
    index = list(slices)
    counts = {}
    for name in names:
        if name in predicted and name in reference:
            own, other = predicted[name][index], reference[name][index]
            counts[name] = np.stack([_set_bits(own & other), _set_bits(own), _set_bits(other)], axis=1)
    nothing = np.zeros((len(index), 3), dtype=np.int64)
    total = sum((counts[name] for name in scored if name in counts), nothing)
    columns = [total, *(counts.get(name, nothing) for name in names)]
    return [[_rounded(dice(*column[place].tolist())) for column in columns] for place in range(len(index))]


def _set_bits(bits: np.ndarray) -> np.ndarray:
    """Number of set bits of each slice, int64."""
    return np.bitwise_count(bits).sum(axis=(1, 2), dtype=np.int64)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)


def _present(masks: Mapping[str, np.ndarray], names: Sequence[str], slices: Sequence[int]) -> list[int]:
    """For each shown slice the structures that have pixels on it: bit k for structure k."""
    index = list(slices)
    found = np.zeros(len(index), dtype=np.int64)
    for place, name in enumerate(names):
        if name in masks:
            found |= masks[name][index].any(axis=(1, 2)).astype(np.int64) << place
    return found.tolist()


def _prompt(prompt: ObjectPrompt, names: Sequence[str], region: Region) -> dict[str, Any]:
    """A prompt for the page: the structure's number, the slice, points with their label, and the box's corners."""
    points = [
        [*(round(float(share), 4) for share in region.place(x, y)), int(label)]
        for (x, y), label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
    ]
    made: dict[str, Any] = {"structure": names.index(prompt.structure), "slice": prompt.slice, "points": points}
    if prompt.box is not None:
        left, top, right, bottom = prompt.box.tolist()
        # The box's last pixels belong to it: it is drawn around their outer edges.
        corners = (*region.place(left - 0.5, top - 0.5), *region.place(right + 0.5, bottom + 0.5))
        made["box"] = [round(float(share), 4) for share in corners]
    return made


def mirrored(axes: str) -> bool:
    """Whether slices grow away from the eye that sees x to the right and y down.

    axes: the directions in which (slice, y, x) grow. A surface that is shown with slices growing towards the eye would
    then be a mirror image.
    """
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    along, down, right = (np.array(directions[letter]) for letter in axes)
    towards_the_eye = np.cross(right, -down)
    return bool(towards_the_eye @ along < 0)


def _coded_masks(
    masks: Mapping[str, np.ndarray],
    names: Sequence[str],
    slices: Sequence[int],
    region: Region,
    size: tuple[int, int],
) -> list[str | None]:
    index = list(slices)
    return [
        coded_mask(shrunk(_unpacked(masks[name], index, region), size)) if name in masks else None for name in names
    ]


def _unpacked(bits: np.ndarray, slices: Sequence[int] | slice, region: Region) -> np.ndarray:
    """Some slices of a mask in bits, cropped to the region's rows and columns: bool."""
    left, right = region.columns
    byte = left // 8  # only the bytes that hold the region's columns are unpacked
    part = bits[:, slice(*region.rows), byte : -(-right // 8)][slices]
    return unpack_bits(part, right - 8 * byte)[..., left - 8 * byte :]


def _solid(bits: np.ndarray, spacing: Sequence[float], cell: float) -> Mesh | None:
    """The surface of a mask in bits, in millimetres from the volume's first voxel, finer than it is shown."""
    sides = [np.flatnonzero(bits.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return None
    (first, stop), rows, (byte, last) = ((int(side[0]), int(side[-1]) + 1) for side in sides)
    box = Region((first, stop), rows, (8 * byte, 8 * last))
    found = surface(_unpacked(bits, slice(first, stop), box), spacing, 0.6 * cell)
    if found is None:
        return None
    return Mesh(found.vertices + np.array([side[0] for side in _sides(box)]) * np.array(spacing), found.triangles)


def _coded_surfaces(
    own: Mapping[str, Mesh | None],
    reference: Mapping[str, Mesh | None],
    names: Sequence[str],
    origin: Sequence[float],
    cell: float,
) -> list[dict[str, Any] | None]:
    made: list[dict[str, Any] | None] = []
    for name in names:
        whole = own.get(name)
        made.append(None if whole is None else coded_surface(whole, reference.get(name), origin, cell))
    return made
