"""NIfTI in one file or as a pair of header and data file, Analyze, and MGH: read by nibabel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from volprompt.files import read_start
from volprompt.volumes.images.file_sizes import require_bytes, require_unpacked_bytes, unpacked_size
from volprompt.volumes.images.formats import formats_in_words
from volprompt.volumes.images.geometry import affine_without_orientation, no_orientation, no_voxel_size
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
# The flag `goodRASFlag` and the voxel sizes, behind seven integers (FreeSurfer's FsTutorial/MghFormat).
MGH_GEOMETRY_AT, MGH_GEOMETRY = 28, np.dtype([("good", ">i2"), ("sizes", ">f4", (3,))])


def open_nifti(path: str) -> Image:
    """Open a NIfTI or Analyze image. Raises VolumeError if it is not one 3D volume of real numbers."""
    return _open(path, nib.analyze.AnalyzeImage)  # the class that all NIfTI images derive from


def open_mgh(path: str) -> Image:
    """Open an image of FreeSurfer. Raises VolumeError if it is not one 3D volume of real numbers."""
    return _open(path, nib.MGHImage)


def _open(path: str, image_class: Any) -> Image:
    """Open an image with nibabel. image_class: what nibabel has to make of the file."""
    read_start(path)
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
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        try:
            image = nib.funcs.squeeze_image(image)  # reads the voxels
        except BROKEN as error:
            raise damaged(path, error) from None
    if len(image.shape) != 3:
        raise not_3d(path, image.shape)
    shape = int(image.shape[0]), int(image.shape[1]), int(image.shape[2])
    affine, warnings = np.asarray(image.affine, dtype=np.float64), []
    oriented = _says_orientation(stored)
    if not oriented:
        affine = affine_without_orientation(_stored_sizes(stored))
        warnings.append(no_orientation(path, "RAS"))
    if missing := _axes_without_size(stored):
        warnings.append(no_voxel_size(path, missing))
    header = image.header if isinstance(image, nib.Nifti1Pair) else geometry_header(shape, affine)
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

    return Image(path, shape, affine, header, load, verify, tuple(warnings), oriented)


def _axes_without_size(stored: Any) -> str:
    """Return in words the axes for which the header gives no voxel size, where one is needed; nibabel would take 1."""
    if isinstance(stored, nib.Nifti1Pair) and stored.header["sform_code"]:
        return ""  # the matrix holds the sizes
    sizes = _stored_sizes(stored)
    missing = ~np.isfinite(sizes) | (sizes == 0)
    return " and ".join(name for name, none in zip(("first", "second", "third"), missing, strict=True) if none)


def _says_orientation(stored: Any) -> bool:
    """Return whether an orientation is known: by the header, or for Analyze by SPM's .mat file."""
    if isinstance(stored, nib.MGHImage):
        return bool(_mgh_geometry(stored)["good"][0])
    if isinstance(stored, nib.Nifti1Pair):
        return bool(stored.header["qform_code"] or stored.header["sform_code"])
    matrix = stored.file_map.get("mat")
    return matrix is not None and Path(matrix.filename).is_file()


def _stored_sizes(stored: Any) -> np.ndarray:
    """Return the voxel sizes as they stand in the header, (3,); nibabel puts 1 in place of 0."""
    if isinstance(stored, nib.MGHImage):
        return _mgh_geometry(stored)["sizes"][0].astype(float)
    holder = stored.file_map.get("header", stored.file_map["image"])
    with holder.get_prepare_fileobj("rb") as stream:
        return np.asarray(type(stored.header).from_fileobj(stream, check=False)["pixdim"][1:4], dtype=float)


def _mgh_geometry(stored: Any) -> np.ndarray:
    """Return what an MGH header says; nibabel puts FreeSurfer's default in its place where the flag is not set."""
    with stored.file_map["image"].get_prepare_fileobj("rb") as stream:
        stream.seek(MGH_GEOMETRY_AT)
        return np.frombuffer(stream.read(MGH_GEOMETRY.itemsize), MGH_GEOMETRY)
