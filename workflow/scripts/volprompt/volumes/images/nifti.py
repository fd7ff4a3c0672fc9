"""NIfTI in one file or as a pair of header and data file, Analyze, and MGH: read by nibabel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from volprompt.volumes.images.file_sizes import require_bytes, require_unpacked_bytes, unpacked_size
from volprompt.volumes.images.formats import formats_in_words
from volprompt.volumes.images.image import (
    BROKEN,
    Image,
    VolumeError,
    damaged,
    geometry_header,
    not_3d,
    not_one_number,
    unreadable,
)

COMPRESSED_ENDINGS = (".gz", ".mgz")


def open_nifti(path: str) -> Image:
    """Open a NIfTI or Analyze image. Raises VolumeError if it is not one 3D volume of real numbers."""
    return _open(path, nib.analyze.AnalyzeImage)  # the class that all NIfTI images derive from


def open_mgh(path: str) -> Image:
    """Open an image of FreeSurfer. Raises VolumeError if it is not one 3D volume of real numbers."""
    return _open(path, nib.MGHImage)


def _open(path: str, image_class: Any) -> Image:
    """Open an image with nibabel. image_class: what nibabel has to make of the file."""
    try:
        stored: Any = nib.load(path)
    except MemoryError:
        raise
    except EOFError as error:
        raise damaged(path, error) from None
    except Exception as error:  # nibabel raises whatever it stumbles over
        raise unreadable(path, error) from None
    if not isinstance(stored, image_class):
        raise VolumeError(path, f"is no image but {type(stored).__name__}", formats_in_words())
    if stored.get_data_dtype().kind not in "iufb":
        raise not_one_number(path, "colours or complex numbers")
    image = stored
    if len(image.shape) == 4 and image.shape[3] == 1:
        try:
            image = nib.funcs.squeeze_image(image)  # reads the voxels
        except BROKEN as error:
            raise damaged(path, error) from None
    if len(image.shape) != 3:
        raise not_3d(path, image.shape)
    shape = int(image.shape[0]), int(image.shape[1]), int(image.shape[2])
    affine = np.asarray(image.affine, dtype=np.float64)
    header = image.header if isinstance(image, nib.Nifti1Pair) else geometry_header(shape, affine)
    warnings: tuple[str, ...] = ()
    if not _says_orientation(stored):
        axes = ", ".join(nib.aff2axcodes(affine))
        warnings = (f"{path}: the header says nothing about orientation; the stored axes are taken as {axes}",)
    data_file = Path(stored.file_map["image"].filename or path)
    compressed = data_file.name.lower().endswith(COMPRESSED_ENDINGS)
    proxy: Any = stored.dataobj
    expected_bytes = int(proxy.offset) + math.prod(map(int, stored.shape)) * stored.get_data_dtype().itemsize

    def load() -> np.ndarray:
        if compressed:
            unpacked_size(data_file, path)
        return np.asarray(image.dataobj, dtype=np.float32)

    def verify() -> None:
        (require_unpacked_bytes if compressed else require_bytes)(data_file, expected_bytes, path)

    return Image(path, shape, affine, header, load, verify, warnings)


def _says_orientation(stored: Any) -> bool:
    """Return whether an orientation is known: by the header, or for Analyze by SPM's .mat file."""
    if isinstance(stored, nib.MGHImage):
        return bool(stored.header["goodRASFlag"])
    if isinstance(stored, nib.Nifti1Pair):
        return bool(stored.header["qform_code"] or stored.header["sform_code"])
    matrix = stored.file_map.get("mat")
    return matrix is not None and Path(matrix.filename).is_file()
