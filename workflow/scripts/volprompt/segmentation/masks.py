"""Binary masks of frames as NIfTI files on the volume's original grid, and back."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib

from volprompt.files import atomic
from volprompt.volumes.grid import Grid

# Voxels that are made and compressed at a time: about what a CPU's cache holds.
SLAB = 2**20
# What zlib takes for a gzip file, with the largest window.
GZIP = 31


def mask_path(folder: str | Path, scheme: str, volume: str, structure: str) -> Path:
    """Where the mask of one structure of one volume lies in the folder of an experiment, model and shard."""
    return Path(folder) / scheme / f"{volume}_label-{structure}_mask.nii.gz"


def rounds_path(folder: str | Path, scheme: str, volume: str, structure: str) -> Path:
    """Where the masks of all rounds of corrections of one structure of one volume lie, beside its mask."""
    return Path(folder) / scheme / f"{volume}_label-{structure}_rounds.nii.gz"


def write_mask(mask: np.ndarray, grid: Grid, path: str | Path) -> None:
    """Write a mask, bool (slice, y, x), as uint8 0/1 on the source's grid, with the source's header geometry."""
    write_bits(np.packbits(mask, axis=-1), grid, path)


def write_bits(bits: np.ndarray, grid: Grid, path: str | Path) -> None:
    """The same for a mask whose columns are bits, uint8 (slice, y, ceil(x / 8))."""
    _write([bits], grid, path, b"volprompt mask", 1)


def write_rounds(rounds: Sequence[np.ndarray], grid: Grid, path: str | Path) -> None:
    """Write the masks of rounds 0, 1, ..., as bits of one image: bit r is round r.

    rounds: of each the mask with its columns as bits, uint8 (slice, y, ceil(x / 8)).

    The number of the last round stands in the header (cal_max).
    """
    _write(rounds, grid, path, b"volprompt rounds: bit r is round r", len(rounds) - 1)


def _write(masks: Sequence[np.ndarray], grid: Grid, path: str | Path, description: bytes, largest: int) -> None:
    """Write masks, whose columns are bits, as bits of one image on the source's grid. largest: the header's cal_max."""
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(grid.header), check=False)
    header.set_data_dtype(np.min_scalar_type(2 ** len(masks) - 1))
    header["cal_min"], header["cal_max"], header["descrip"] = 0, largest, description
    # Without an affine nibabel leaves qform, sform and their codes as they are. The doubles of a NIfTI-2 header are
    # rounded here; the header of another format may hold no orientation.
    unsaid = not (header["qform_code"] or header["sform_code"])
    known = unsaid or np.allclose(header.get_best_affine(), grid.affine, rtol=1e-5, atol=1e-5)
    header = nib.Nifti1Image(np.broadcast_to(np.uint8(0), grid.shape), None if known else grid.affine, header).header
    header.set_slope_inter(1, 0)
    start = io.BytesIO()
    header.write_to(start)
    # Far faster than the standard library's gzip at level 1, and half the size (benchmarks/README.md). Its header holds
    # no time, so that the same mask gives the same bytes.
    gzip = isal_zlib.compressobj(level=1, wbits=GZIP)
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        stream.write(gzip.compress(start.getvalue()))
        for voxels in _slabs(masks, grid, header.get_data_dtype()):
            stream.write(gzip.compress(voxels.T))
        stream.write(gzip.flush())


def _slabs(masks: Sequence[np.ndarray], grid: Grid, kind: np.dtype) -> Iterator[np.ndarray]:
    """The image whose bit m is mask m, some planes of its last axis after another, in the file's (Fortran) order."""
    probe = grid.to_source(np.empty((1, 1, 2), np.uint8))
    axis = probe.shape.index(2)
    backwards = probe.strides[axis] < 0
    # Turned, but for the order of their bytes.
    turned = [np.flip(grid.to_source(bits), axis) if backwards else grid.to_source(bits) for bits in masks]
    *plane, depth = grid.shape
    step = -(-max(1, SLAB // (plane[0] * plane[1])) // 8) * 8
    firsts = range(0, depth, step)
    for first in reversed(firsts) if axis == 2 and backwards else firsts:
        last = min(first + step, depth)
        planes = slice(first // 8, -(-last // 8)) if axis == 2 else slice(first, last)
        shape = plane[0], plane[1], last - first
        voxels, *others = (_unpacked(bits[:, :, planes], shape, axis, backwards) for bits in turned)
        voxels = voxels.astype(kind, copy=False)
        for number, mask in enumerate(others, 1):
            voxels |= mask.astype(kind) << number
        yield voxels


def _unpacked(bits: np.ndarray, shape: tuple[int, int, int], axis: int, backwards: bool) -> np.ndarray:
    """A mask in Fortran order, uint8, from one whose columns, along an axis, are bits; backwards: they turn round.

    Eight columns as one byte are turned and then unpacked: single voxels would take four times as long to turn.
    """
    mask = np.empty(shape, np.uint8, order="F")
    columns, packed = np.moveaxis(mask, axis, -1), np.moveaxis(bits.astype(np.uint8, order="F"), axis, -1)
    if backwards:
        columns = columns[..., ::-1]
    for bit in range(8):
        part = columns[..., bit::8]
        np.right_shift(packed[..., : part.shape[-1]], 7 - bit, out=part)
        part &= 1
    return mask


def unpack_bits(masks: np.ndarray, width: int) -> np.ndarray:
    """Masks, bool (slice, y, x), from bits, uint8 (slice, y, ceil(x / 8)); width: length of x."""
    return np.unpackbits(masks, axis=-1, count=width).view(bool)


def read_rounds(path: str | Path, grid: Grid) -> np.ndarray:
    """Read the masks of all rounds as bool (round, slice, y, x)."""
    image: Any = nib.load(path)
    bits = grid.to_frames(np.asarray(image.dataobj))
    return np.stack([(bits >> number) & 1 > 0 for number in range(int(image.header["cal_max"]) + 1)])


def read_mask(path: str | Path, grid: Grid) -> np.ndarray:
    """Read a mask as bool (slice, y, x)."""
    image: Any = nib.load(path)
    return grid.to_frames(np.asarray(image.dataobj)) > 0
