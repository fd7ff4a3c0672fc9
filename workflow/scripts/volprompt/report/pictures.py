"""A volume as the viewer gets it: which part is shown and how finely, as values for JSON.

Places on the shown crop are shares of its width and height, from its upper left corner: pixel x of the frame,
whose centre is at x, covers x - 0.5 to x + 0.5, so its centre lies at (x + 0.5 - left) / width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from volprompt.prompts.schemes import ObjectPrompt
from volprompt.report.meshes import Mesh, surface
from volprompt.report.packing import Sheet, encode_mask, encode_surface, shrink
from volprompt.report.shown import Configuration, Level, Region, ShownVolume
from volprompt.scores.scores import dice
from volprompt.segmentation.masks import unpack_bits


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
    region: the part that is shown.
    slices: the slices that are shown.
    sheet: their frames as one picture.
    level: how finely the volume is shown.
    """
    spacing = volume.grid.spacing
    longest = max(np.ptp(side) * mm for side, mm in zip(_sides(region), spacing, strict=True))
    cell = longest / level.cells if level.cells else 0.0
    origin = [side[0] * mm for side, mm in zip(_sides(region), spacing, strict=True)]
    reference = {name: _surface_of(bits, spacing, cell) for name, bits in volume.reference.items()} if cell else {}
    size = sheet.size
    true = volume.counted(volume.reference)
    picture = {
        "name": volume.name,
        "depth": len(volume.frames),
        "axes": volume.grid.axes,
        "mirrored": mirrored(volume.grid.axes),
        "slices": list(slices),
        "size": list(size),
        "first": region.slices[0],
        "extent_slices": region.slices[1] - region.slices[0],
        "extent_mm": [round(float(np.ptp(side) * mm), 3) for side, mm in zip(_sides(region), spacing, strict=True)],
        "outside_mm": _outside(region, volume.frames.shape[1:], spacing[1:]),
        "columns": sheet.columns,
        "frames": sheet.data,
        "reference": _encode_masks(volume.reference, names, slices, region, size),
        "ignored": None if volume.ignored is None else encode_mask(shown_mask(volume.ignored, slices, region, size)),
        "present": present_structures(true, names, slices),
        "surfaces": _encode_surfaces(reference, {}, names, origin, cell),
    }
    views = {}
    fullest = fullest_place(volume.reference, region, size)
    for configuration, masks in volume.predicted.items():
        predicted = {name: _surface_of(bits, spacing, cell) for name, bits in masks.items()} if cell else {}
        prompts = [p for p in volume.prompts[configuration[2]] if p.slice in slices]
        counted = volume.counted(masks)
        views[configuration] = {
            "masks": _encode_masks(masks, names, slices, region, size),
            "present": present_structures(counted, names, slices),
            "surfaces": _encode_surfaces(predicted, reference, names, origin, cell),
            "slice_dice": slice_dices(counted, true, names, volume.scored, slices),
            "prompts": [_encode_prompt(prompt, names, region) for prompt in prompts],
            "start": _first_shown(
                prompts if configuration[2] in volume.carried else [], volume.reference or masks, slices
            ),
            "across": fullest or fullest_place(masks, region, size) or [count // 2 for count in size],
        }
    return picture, views


def _sides(region: Region) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return region.slices, region.rows, region.columns


def _outside(region: Region, shape: Sequence[int], spacing: Sequence[float]) -> list[list[float]]:
    """Return the millimetres of the frame before and behind the shown part, along y and x."""
    sides = zip((region.rows, region.columns), shape, spacing, strict=True)
    return [[round(first * mm, 3), round((count - stop) * mm, 3)] for (first, stop), count, mm in sides]


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


def fullest_place(masks: Mapping[str, np.ndarray], region: Region, size: tuple[int, int]) -> list[int] | None:
    """Return the row and the column of the shown picture on which most voxels of masks are, as bits; None if there are
    none. Of several, the middle one: there the viewer's planes across begin.

    region: the part that is shown, in `size` pixels (y, x).
    """
    if not masks:
        return None
    rows = np.sum([np.bitwise_count(bits).sum(axis=(0, 2), dtype=np.int64) for bits in masks.values()], axis=0)
    # Bytes of eight columns: of each column its own bit.
    columns = np.sum(
        [[((bits >> bit) & 1).sum(axis=(0, 1), dtype=np.int64) for bit in range(7, -1, -1)] for bits in masks.values()],
        axis=0,
    ).T.ravel()
    if not rows.any():
        return None
    place = []
    for counts, (first, stop), shown in zip((rows, columns), (region.rows, region.columns), size, strict=True):
        most = np.flatnonzero(counts == counts.max())
        place.append(int((most[len(most) // 2] + 0.5 - first) / (stop - first) * shown))
    return place


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


def present_structures(masks: Mapping[str, np.ndarray], names: Sequence[str], slices: Sequence[int]) -> list[int]:
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
    return [encode_mask(shown_mask(masks[name], index, region, size)) if name in masks else None for name in names]


def shown_mask(bits: np.ndarray, slices: Sequence[int], region: Region, size: tuple[int, int]) -> np.ndarray:
    """Return a mask in bits as it is shown: bool (slice, y, x), some slices of the region in `size` pixels (y, x)."""
    return shrink(_unpack_region(bits, slices, region), size)


def _unpack_region(bits: np.ndarray, slices: Sequence[int] | slice, region: Region) -> np.ndarray:
    """Unpack some slices of a mask in bits, cropped to the region's rows and columns: bool (slice, y, x)."""
    left, right = region.columns
    byte = left // 8  # only the bytes that hold the region's columns are unpacked
    part = bits[:, slice(*region.rows), byte : -(-right // 8)][slices]
    return unpack_bits(part, right - 8 * byte)[..., left - 8 * byte :]


def _surface_of(bits: np.ndarray, spacing: Sequence[float], cell: float) -> Mesh | None:
    """Return the surface of a mask in bits, in millimetres from the volume's first voxel, finer than it is shown."""
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
