"""Binary masks of frames as NIfTI files on the volume's original grid, and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip

from volprompt.files import atomic
from volprompt.volumes.grid import Grid


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
    _write(_in_file_order(bits, grid), grid, path, b"volprompt mask", 1)


def write_rounds(rounds: Sequence[np.ndarray], grid: Grid, path: str | Path) -> None:
    """Write the masks of rounds 0, 1, ..., as bits of one image: bit r is round r.

    rounds: of each the mask with its columns as bits, uint8 (slice, y, ceil(x / 8)).

    The number of the last round stands in the header (cal_max).
    """
    source = np.zeros(grid.shape, np.min_scalar_type(2 ** len(rounds) - 1), order="F")
    for number, bits in enumerate(rounds):
        source |= np.left_shift(_in_file_order(bits, grid), number, dtype=source.dtype, casting="unsafe")
    _write(source, grid, path, b"volprompt rounds: bit r is round r", len(rounds) - 1)


def _write(source: np.ndarray, grid: Grid, path: str | Path, description: bytes, largest: int) -> None:
    """Write an array on the source's grid. largest: for the header's cal_max."""
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(grid.header), check=False)
    header.set_data_dtype(source.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"], header["descrip"] = 0, largest, description
    # Without an affine nibabel leaves qform, sform and their codes as they are. The doubles of a NIfTI-2 header are
    # rounded here; the header of another format may hold no orientation.
    unsaid = not (header["qform_code"] or header["sform_code"])
    known = unsaid or np.allclose(header.get_best_affine(), grid.affine, rtol=1e-5, atol=1e-5)
    image = nib.Nifti1Image(source, None if known else grid.affine, header)
    with atomic(path) as temporary:
        # Far faster than the standard library's gzip at level 1, and half the size (benchmarks/README.md).
        # Without the time in gzip's header the same mask gives the same bytes.
        temporary.write_bytes(igzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _in_file_order(bits: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask, uint8 (slice, y, ceil(x / 8)), as uint8 on the source's grid in Fortran order, that of the file.

    Eight columns as one byte are turned and then unpacked: single voxels would take four times as long to turn.
    """
    turned = grid.to_source(bits).astype(np.uint8, order="F")
    source = np.empty(grid.shape, np.uint8, order="F")
    probe = grid.to_source(np.empty((1, 1, 2), np.uint8))
    x = probe.shape.index(2)
    columns, packed = np.moveaxis(source, x, -1), np.moveaxis(turned, x, -1)
    if probe.strides[x] < 0:
        columns, packed = columns[..., ::-1], packed[..., ::-1]
    for bit in range(8):
        part = columns[..., bit::8]
        np.right_shift(packed[..., : part.shape[-1]], 7 - bit, out=part)
        part &= 1
    return source


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
