"""NRRD and MetaImage, read by SimpleITK. Header texts go nowhere: they may hold what identifies a patient."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from volprompt.volumes.images.file_sizes import require_bytes, require_possible_bytes, require_unpacked_bytes
from volprompt.volumes.images.formats import HEADER_BYTES, data_files
from volprompt.volumes.images.geometry import no_orientation, no_voxel_size
from volprompt.volumes.images.image import (
    LPS_TO_RAS,
    Image,
    VolumeError,
    damaged,
    geometry_header,
    not_3d,
    not_one_number,
    unreadable,
)

# The lines by which a header says where its axes point, in spaces that ITK turns into L, P, S.
NRRD_SPACE = rb"^space:\s*((left-posterior|right-anterior|left-anterior)-superior|LPS|RAS|LAS)\s*$"
METAIMAGE_DIRECTIONS = rb"^(TransformMatrix|Rotation|Orientation)\s*="
# The lines by which a header gives the voxel sizes; without them ITK takes 1.
NRRD_SIZES = rb"^(spacings|space directions):(?!.*nan)"
METAIMAGE_SIZES = rb"^(ElementSpacing|ElementSize)\s*="


def open_nrrd(path: str) -> Image:
    """Open an NRRD image. Raises VolumeError if it is not one 3D volume of real numbers."""

    def require_data(header: bytes, data_file: Path, voxel_bytes: int) -> None:
        encoding = _search(rb"^encoding:\s*(\w+)\s*$", header)
        if encoding == "raw":
            require_bytes(data_file, voxel_bytes, path)
        elif encoding in ("gzip", "gz"):
            if data_file == Path(path):
                require_possible_bytes(data_file, voxel_bytes, path)
            else:
                require_unpacked_bytes(data_file, voxel_bytes, path)
        elif encoding not in ("txt", "text", "ascii", "hex"):
            raise VolumeError(
                path,
                f"its voxels are written with the encoding '{encoding}'",
                "raw, gzip, text or hex",
                "Save it again, for example in 3D Slicer with compression by gzip",
            )

    return _open_itk(path, "NrrdImageIO", NRRD_SPACE, NRRD_SIZES, require_data)


def open_metaimage(path: str) -> Image:
    """Open a MetaImage. Raises VolumeError if it is not one 3D volume of real numbers."""

    def require_data(header: bytes, data_file: Path, voxel_bytes: int) -> None:
        if _search(rb"^CompressedData\s*=\s*(\w+)\s*$", header) == "true":
            require_possible_bytes(data_file, voxel_bytes, path)
            voxel_bytes = int(_search(rb"^CompressedDataSize\s*=\s*(\d+)\s*$", header) or 0)
        elif _search(rb"^BinaryData\s*=\s*(\w+)\s*$", header) != "true":
            return  # numbers as text
        require_bytes(data_file, voxel_bytes, path)

    return _open_itk(path, "MetaImageIO", METAIMAGE_DIRECTIONS, METAIMAGE_SIZES, require_data)


def _search(pattern: bytes, header: bytes) -> str:
    """Return what the group of a pattern matches in a header, in lower case; empty if nothing does."""
    match = re.search(pattern, header, re.MULTILINE | re.IGNORECASE)
    return "" if match is None else match[1].decode(errors="replace").lower()


def _open_itk(
    path: str,
    reader_name: str,
    orientation_line: bytes,
    size_line: bytes,
    require_data: Callable[[bytes, Path, int], None],
) -> Image:
    """Open an image with one of ITK's readers.

    path: the header.
    reader_name: of ITK's reader.
    orientation_line: pattern of the line by which a header says where its axes point.
    size_line: pattern of the line by which a header gives the voxel sizes.
    require_data: called with the header's text, the file that holds the voxels, and their number of bytes when they are
        not compressed; raises VolumeError if the file is too small.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        kind = reader_name.removesuffix("ImageIO")
        raise unreadable(path, f"not a {kind} file, or its header is broken") from None
    if (count := reader.GetNumberOfComponents()) > 1:
        raise not_one_number(path, f"{count} numbers per voxel (colours, vectors, or layers of a segmentation)")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise not_one_number(path, "colours or complex numbers")
    size = reader.GetSize()
    if len(size) < 3 or any(length > 1 for length in size[3:]):
        raise not_3d(path, size)
    shape = size[0], size[1], size[2]
    affine = _affine_of(reader)
    with open(path, "rb") as stream:
        header = stream.read(HEADER_BYTES)
    oriented, sized = (
        re.search(line, header, re.MULTILINE | re.IGNORECASE) is not None for line in (orientation_line, size_line)
    )
    warnings = [] if oriented else [no_orientation(path, "LPS")]
    if not sized:
        warnings.append(no_voxel_size(path))
    parts = data_files(path) or [Path(path)]
    itemsize = sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).itemsize
    voxel_bytes = math.prod(shape) * itemsize

    def load() -> np.ndarray:
        try:
            voxels = sitk.ReadImage(path, sitk.sitkFloat32, imageIO=reader_name)
        except RuntimeError:
            raise damaged(path, "its voxels cannot be read") from None
        return sitk.GetArrayFromImage(voxels).reshape(shape[::-1]).T

    def verify() -> None:
        for part in parts:
            require_data(header, part, voxel_bytes // len(parts))

    return Image(path, shape, affine, geometry_header(shape, affine), load, verify, tuple(warnings), oriented)


def _affine_of(reader: sitk.ImageFileReader) -> np.ndarray:
    """Return the (4, 4) affine, voxel index -> world, RAS+ millimetres, from ITK's directions, spacing and origin."""
    dimension = len(reader.GetSize())
    lps = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    lps[:3, :3] = direction * np.asarray(reader.GetSpacing())[:3]
    lps[:3, 3] = reader.GetOrigin()[:3]
    return LPS_TO_RAS @ lps
