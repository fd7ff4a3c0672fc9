"""Any supported file becomes an image: shape, affine in RAS+ millimetres, and voxels on request."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from isal import igzip, igzip_lib

from volprompt.volumes.images.archives import members_of
from volprompt.volumes.images.dicom import read_series
from volprompt.volumes.images.image import (
    BROKEN,
    FORMATS,
    LPS_TO_RAS,
    Image,
    VolumeError,
    damaged,
    geometry_header,
    no_file,
    unreadable,
)
from volprompt.volumes.images.sources import HEADER_BYTES, data_file, is_archive, is_dicom

BROKEN_GZIP: Any = (*BROKEN, igzip_lib.IsalError)
ITK_READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
# The lines by which a header says where its axes point, in spaces that ITK turns into L, P, S.
ORIENTED = {
    "NrrdImageIO": rb"^space:\s*((left-posterior|right-anterior|left-anterior)-superior|LPS|RAS|LAS)\s*$",
    "MetaImageIO": rb"^(TransformMatrix|Rotation|Orientation)\s*=",
}
UNCOMPRESSED = {"NrrdImageIO": rb"^encoding:\s*raw\s*$", "MetaImageIO": rb"^CompressedData\s*=\s*False\s*$"}


@contextmanager
def open_image(path: str, series: str = "") -> Iterator[Image]:
    """Open a 3D image without reading its voxels, which can be read until the block ends.

    path: a file of a supported format, or a folder or archive of DICOM files; series: which series of it, see
    `dicom.read_series`. Raises VolumeError for anything that is not one 3D volume of real numbers.
    """
    if not Path(path).exists():
        raise no_file(path)
    if Path(path).is_dir() or is_archive(path):
        with members_of(path) as members:
            yield read_series(members, path, series)
    elif series:
        raise VolumeError(
            path, f"the series '{series}' is chosen from a single file", "a folder or an archive of DICOM"
        )
    elif Path(path).suffix.lower() in ITK_READERS:
        yield _open_itk(path)
    elif is_dicom(path):
        raise VolumeError(path, "is a single DICOM file", "the folder or the archive of its series")
    else:
        yield _open_nifti(path)


def read_voxels(image: Image) -> np.ndarray:
    """Read the voxels as float32 on the stored grid. Raises VolumeError for a broken file, NaN or infinite values."""
    image.verify()
    try:
        voxels = np.asarray(image.load(), dtype=np.float32)
    except BROKEN as error:
        raise damaged(image.path, error) from None
    finite = np.isfinite(voxels)
    if not finite.all():
        count = int(voxels.size - finite.sum())
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise VolumeError(
            image.path,
            f"{count} voxels are NaN or infinite, the first at {first}",
            "numbers",
            "Replace them, for example by the background's value",
        )
    return voxels


def _open_nifti(path: str) -> Image:
    """NIfTI, and what else nibabel knows as an image."""
    try:
        image: Any = nib.load(path)
    except MemoryError:
        raise
    except Exception as error:  # its readers of rare formats raise whatever they stumble over
        raise unreadable(path, error) from None
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise VolumeError(path, f"is no image but {type(image).__name__}", FORMATS)
    if image.get_data_dtype().kind not in "iufb":
        raise _not_one_number(path, "colours or complex numbers")
    stored = image
    if len(image.shape) == 4 and image.shape[3] == 1:
        try:
            image = nib.funcs.squeeze_image(image)  # reads the voxels
        except BROKEN as error:
            raise damaged(path, error) from None
    if len(image.shape) != 3:
        raise _not_3d(path, image.shape)
    warnings: tuple[str, ...] = ()
    if isinstance(image, nib.Nifti1Image) and not (image.header["qform_code"] or image.header["sform_code"]):
        warnings = (f"{path}: the header says nothing about orientation; the stored axes are taken as R, A, S",)
    shape = image.shape[0], image.shape[1], image.shape[2]
    affine = np.asarray(image.affine, dtype=np.float64)

    def load() -> np.ndarray:
        if path.lower().endswith(".gz"):
            _unpacked_size(path)
        return np.asarray(image.dataobj, dtype=np.float32)

    return Image(path, shape, affine, image.header, load, lambda: _require_whole_nifti(stored, path), warnings)


def _require_whole_nifti(image: Any, path: str) -> None:
    """Compare the size of a single NIfTI file with what its header promises, without reading voxels.

    The last four bytes of a gzip file are the size of what it unpacks to (RFC 1952), if it has one member; where they
    say something else, the file is unpacked to see.
    """
    if not isinstance(image, nib.Nifti1Image) or not path.lower().endswith((".nii", ".nii.gz")):
        return
    stored: Any = image.dataobj
    needed = stored.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    size = Path(path).stat().st_size
    if not path.lower().endswith(".gz"):
        if size < needed:
            raise damaged(path, f"{size} bytes, {needed} expected")
        return
    with open(path, "rb") as stream:
        stream.seek(-min(4, size), 2)
        unpacked = int.from_bytes(stream.read(), "little")
    if unpacked == needed % 2**32:
        return
    found = _unpacked_size(path)
    if found < needed:
        raise damaged(path, f"{found} bytes unpacked, {needed} expected")


def _unpacked_size(path: str) -> int:
    """Unpack a gzip file to see that its checksum holds, which nobody does who stops reading at the last voxel."""
    size = 0
    try:
        with igzip.open(path) as stream:
            while chunk := stream.read(2**22):
                size += len(chunk)
    except BROKEN_GZIP as error:
        raise damaged(path, error) from None
    return size


def _open_itk(path: str) -> Image:
    """NRRD and MetaImage. Header texts go nowhere: they may hold what identifies a patient."""
    kind = ITK_READERS[Path(path).suffix.lower()]
    beside = data_file(path)
    if beside is not None and not beside.is_file():
        raise VolumeError(path, f"its data file {beside.name} is missing", remedy="Put it beside the header")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise unreadable(path, f"not a {kind.removesuffix('ImageIO')} file, or its header is broken") from None
    if (count := reader.GetNumberOfComponents()) > 1:
        raise _not_one_number(path, f"{count} numbers per voxel (colours, vectors, or layers of a segmentation)")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise _not_one_number(path, "colours or complex numbers")
    size = reader.GetSize()
    if len(size) < 3 or any(more > 1 for more in size[3:]):
        raise _not_3d(path, size)
    dimension = len(size)
    lps = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    lps[:3, :3] = direction * np.asarray(reader.GetSpacing())[:3]
    lps[:3, 3] = reader.GetOrigin()[:3]
    affine = LPS_TO_RAS @ lps
    shape = size[0], size[1], size[2]
    with open(path, "rb") as stream:
        text = stream.read(HEADER_BYTES)
    warnings: tuple[str, ...] = ()
    if not re.search(ORIENTED[kind], text, re.MULTILINE | re.IGNORECASE):
        warnings = (f"{path}: the header says nothing about orientation; the stored axes are taken as L, P, S",)
    raw = re.search(UNCOMPRESSED[kind], text, re.MULTILINE | re.IGNORECASE) is not None
    itemsize = sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).itemsize
    needed = math.prod(shape) * itemsize if raw else 0

    def load() -> np.ndarray:
        try:
            read = sitk.ReadImage(path, sitk.sitkFloat32, imageIO=kind)
        except RuntimeError:
            raise damaged(path, "its voxels cannot be read") from None
        return sitk.GetArrayFromImage(read).reshape(shape[::-1]).T

    def verify() -> None:
        size = (beside or Path(path)).stat().st_size
        if size < needed:
            raise damaged(path, f"{size} bytes, {needed} expected")

    return Image(path, shape, affine, geometry_header(shape, affine), load, verify, warnings)


def _not_one_number(path: str, found: str) -> VolumeError:
    remedy = "" if "layers" not in found else "Choose one, or in 3D Slicer export the segmentation as a label map"
    return VolumeError(path, f"holds {found}", "one real number per voxel", remedy)


def _not_3d(path: str, shape: tuple[int, ...]) -> VolumeError:
    return VolumeError(
        path,
        f"has {len(shape)} dimensions {tuple(shape)}",
        "a 3D volume",
        "Choose one volume of a series and store it by itself",
    )
