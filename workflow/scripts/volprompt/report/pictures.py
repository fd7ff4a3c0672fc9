"""A volume as the viewer gets it: which part is shown and how finely, as values for JSON.

Places on the shown crop are shares of its width and height, from its upper left corner: pixel x of the frame,
whose centre is at x, covers x - 0.5 to x + 0.5, so its centre lies at (x + 0.5 - left) / width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volprompt.prompts.schemes import ObjectPrompt
from volprompt.report.meshes import Mesh, surface
from volprompt.report.packing import Sheet, encode_mask, encode_surface, shrink
from volprompt.scores.scores import dice
from volprompt.segmentation.masks import unpack_bits
from volprompt.volumes.grid import Grid

# Share of the shown structures' extent that is shown around them, along y and x; and slices before and after.
MARGIN, MARGIN_SLICES = 0.15, 2
Configuration = tuple[str, str, str]  # experiment, model, scheme


@dataclass(frozen=True)
class Level:
    """How finely a volume is volume.

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
    """

    name: str
    grid: Grid
    frames: np.ndarray
    reference: Mapping[str, np.ndarray]
    predicted: Mapping[Configuration, Mapping[str, np.ndarray]]
    prompts: Mapping[str, Sequence[ObjectPrompt]]
    carried: frozenset[str]
    scored: tuple[str, ...]


def shown_region(volume: ShownVolume) -> Region:
    """Return the box around all masks and prompts, with a margin; the whole volume if there are none."""
    depth, height, width = volume.frames.shape
    occupied = np.zeros((depth, height, (width + 7) // 8), dtype=np.uint8)
    for masks in (volume.reference, *volume.predicted.values()):
        for bits in masks.values():
            occupied |= bits
    slices = np.flatnonzero(occupied.any(axis=(1, 2))).tolist()
    rows = np.flatnonzero(occupied.any(axis=(0, 2))).tolist()
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(occupied, axis=(0, 1)), count=width)).tolist()
    for prompt in (prompt for prompts in volume.prompts.values() for prompt in prompts):
        slices.append(prompt.slice)
        corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        for x, y in [*prompt.points, *corners]:
            columns.append(min(max(round(float(x)), 0), width - 1))
            rows.append(min(max(round(float(y)), 0), height - 1))
    margin = round(MARGIN * max(max(side) - min(side) + 1 for side in (rows, columns))) if rows and columns else 0
    return Region(
        _around(slices, MARGIN_SLICES, depth),
        _around(rows, margin, height),
        _around(columns, margin, width),
    )


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
    """Return the slices from which schemes carry masks on, which are always shown."""
    return sorted({prompt.slice for scheme in volume.carried for prompt in volume.prompts[scheme]})


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


def encode_volume(
    volume: ShownVolume,
    names: Sequence[str],
    region: Region,
    slices: Sequence[int],
    sheet: Sheet,
    level: Level,
) -> tuple[dict[str, Any], dict[Configuration, dict[str, Any]]]:
    """Return the picture of a volume, and what each configuration adds to it, as values for JSON.

    volume: at full resolution.
    names: of the shown structures, in the order of all lists by structure.
    region: the part that is volume.
    slices: the slices that are volume.
    sheet: their frames as one picture.
    level: how finely the volume is volume.
    """
    spacing = volume.grid.spacing
    longest = max(np.ptp(side) * mm for side, mm in zip(_sides(region), spacing, strict=True))
    cell = longest / level.cells if level.cells else 0.0
    origin = [side[0] * mm for side, mm in zip(_sides(region), spacing, strict=True)]
    reference = {name: _surface_of(bits, spacing, cell) for name, bits in volume.reference.items()} if cell else {}
    size = sheet.size
    picture = {
        "name": volume.name,
        "depth": len(volume.frames),
        "axes": volume.grid.axes,
        "mirrored": mirrored(volume.grid.axes),
        "slices": list(slices),
        "size": list(size),
        "width_mm": round((region.columns[1] - region.columns[0]) * spacing[2], 3),
        "height_mm": round((region.rows[1] - region.rows[0]) * spacing[1], 3),
        "first": region.slices[0],
        "extent_slices": region.slices[1] - region.slices[0],
        "extent_mm": [round(float(np.ptp(side) * mm), 3) for side, mm in zip(_sides(region), spacing, strict=True)],
        "columns": sheet.columns,
        "frames": sheet.data,
        "reference": _encode_masks(volume.reference, names, slices, region, size),
        "present": _present_structures(volume.reference, names, slices),
        "surfaces": _encode_surfaces(reference, {}, names, origin, cell),
    }
    views = {}
    for configuration, masks in volume.predicted.items():
        predicted = {name: _surface_of(bits, spacing, cell) for name, bits in masks.items()} if cell else {}
        prompts = [p for p in volume.prompts[configuration[2]] if p.slice in slices]
        views[configuration] = {
            "masks": _encode_masks(masks, names, slices, region, size),
            "present": _present_structures(masks, names, slices),
            "surfaces": _encode_surfaces(predicted, reference, names, origin, cell),
            "slice_dice": slice_dices(masks, volume.reference, names, volume.scored, slices),
            "prompts": [_encode_prompt(prompt, names, region) for prompt in prompts],
            "start": _first_shown(
                prompts if configuration[2] in volume.carried else [], volume.reference or masks, slices
            ),
        }
    return picture, views


def _sides(region: Region) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return region.slices, region.rows, region.columns


def _first_shown(prompts: Sequence[ObjectPrompt], masks: Mapping[str, np.ndarray], slices: Sequence[int]) -> int:
    """Return the index in `slices` with which the viewer begins.

    prompts: of a scheme that carries masks on from them; none of another. That is the first prompted slice, or else the
    middle one of those with the most structures.
    """
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
    """Return the Dice of every shown slice at full resolution: combined over the scored structures, then per structure.

    predicted, reference: masks by structure as bits.
    names: of the shown structures.
    scored: names of the scored structures.
    slices: the shown slices.

    None if it is undefined, and for a structure without reference.
    """
    if not reference:
        return []
    index = list(slices)
    counts = {}
    for name in names:
        if name in predicted and name in reference:
            mask, truth = predicted[name][index], reference[name][index]
            counts[name] = np.stack([_count_bits(mask & truth), _count_bits(mask), _count_bits(truth)], axis=1)
    zeros = np.zeros((len(index), 3), dtype=np.int64)
    total = sum((counts[name] for name in scored if name in counts), zeros)
    columns = [total, *(counts.get(name, zeros) for name in names)]
    return [[_round_or_none(dice(*column[place].tolist())) for column in columns] for place in range(len(index))]


def _count_bits(bits: np.ndarray) -> np.ndarray:
    """Count the set bits of every slice: int64 (slice,)."""
    return np.bitwise_count(bits).sum(axis=(1, 2), dtype=np.int64)


def _round_or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)


def _present_structures(masks: Mapping[str, np.ndarray], names: Sequence[str], slices: Sequence[int]) -> list[int]:
    """Return for every shown slice which structures have pixels on it: bit k for structure k."""
    index = list(slices)
    present = np.zeros(len(index), dtype=np.int64)
    for place, name in enumerate(names):
        if name in masks:
            present |= masks[name][index].any(axis=(1, 2)).astype(np.int64) << place
    return present.tolist()


def _encode_prompt(prompt: ObjectPrompt, names: Sequence[str], region: Region) -> dict[str, Any]:
    """Return a prompt for the page: the structure's number, slice, points with labels, and corners of the box."""
    points = [
        [*(round(float(share), 4) for share in region.place(x, y)), int(label)]
        for (x, y), label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
    ]
    entry: dict[str, Any] = {"structure": names.index(prompt.structure), "slice": prompt.slice, "points": points}
    if prompt.box is not None:
        left, top, right, bottom = prompt.box.tolist()
        # The outermost pixels belong to the box, so it is drawn around their outer edges.
        corners = (*region.place(left - 0.5, top - 0.5), *region.place(right + 0.5, bottom + 0.5))
        entry["box"] = [round(float(share), 4) for share in corners]
    return entry


def mirrored(axes: str) -> bool:
    """Return whether slices grow away from an eye that sees x to the right and y down.

    axes: the directions in which (slice, y, x) grow. If so, a surface that is shown with slices growing towards the eye
    is a mirror image.
    """
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    along, down, right = (np.array(directions[letter]) for letter in axes)
    towards_the_eye = np.cross(right, -down)
    return bool(towards_the_eye @ along < 0)


def _encode_masks(
    masks: Mapping[str, np.ndarray],
    names: Sequence[str],
    slices: Sequence[int],
    region: Region,
    size: tuple[int, int],
) -> list[str | None]:
    """Encode masks in bits, in the order of `names`; None for a structure without one."""
    index = list(slices)
    return [
        encode_mask(shrink(_unpack_region(masks[name], index, region), size)) if name in masks else None
        for name in names
    ]


def _unpack_region(bits: np.ndarray, slices: Sequence[int] | slice, region: Region) -> np.ndarray:
    """Unpack some slices of a mask in bits, cropped to the region's rows and columns: bool (slice, y, x)."""
    left, right = region.columns
    byte = left // 8  # only the bytes that hold the region's columns are unpacked
    part = bits[:, slice(*region.rows), byte : -(-right // 8)][slices]
    return unpack_bits(part, right - 8 * byte)[..., left - 8 * byte :]


def _surface_of(bits: np.ndarray, spacing: Sequence[float], cell: float) -> Mesh | None:
    """Return the surface of a mask in bits, in millimetres from the volume's first voxel, finer than it is volume."""
    sides = [np.flatnonzero(bits.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return None
    (first, stop), rows, (byte, last) = ((int(side[0]), int(side[-1]) + 1) for side in sides)
    box = Region((first, stop), rows, (8 * byte, 8 * last))
    mesh = surface(_unpack_region(bits, slice(first, stop), box), spacing, 0.6 * cell)
    if mesh is None:
        return None
    return Mesh(mesh.vertices + np.array([side[0] for side in _sides(box)]) * np.array(spacing), mesh.triangles)


def _encode_surfaces(
    meshes: Mapping[str, Mesh | None],
    reference: Mapping[str, Mesh | None],
    names: Sequence[str],
    origin: Sequence[float],
    cell: float,
) -> list[dict[str, Any] | None]:
    """Encode surfaces, in the order of `names`; None for a structure without one. Arguments as in `encode_surface`."""
    pairs = [(meshes.get(name), reference.get(name)) for name in names]
    return [None if mesh is None else encode_surface(mesh, other, origin, cell) for mesh, other in pairs]
