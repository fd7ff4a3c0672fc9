"""What every image format is read into, and the error that says why a file cannot be used."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from volprompt.errors import VolpromptError
from volprompt.volumes.images.formats import formats_in_words

# What reading the voxels of a damaged file raises.
BROKEN = (OSError, EOFError, ValueError, zlib.error)
# Masks are NIfTI-1, which counts voxels along an axis in 16 bits.
MAX_SIDE = 32767
MAX_VOXELS = 2**31
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class VolumeError(VolpromptError):
    """A volume that cannot be used: the file, the finding, the expectation, the remedy."""

    def __init__(self, file: str, finding: str, expected: str = "", remedy: str = "") -> None:
        self.file, self.finding, self.expected, self.remedy = file, finding, expected, remedy
        expectation = f"; expected {expected}" if expected else ""
        super().__init__(f"{file}: {finding}{expectation}" + (f". {remedy}" if remedy else ""))


def damaged(path: str, detail: object) -> VolumeError:
    """Return the error for a file whose content is not what its header promises."""
    return VolumeError(path, f"the file is damaged or cut off ({detail})", remedy="Copy it again")


def no_file(path: str) -> VolumeError:
    """Return the error for a file that does not exist."""
    return VolumeError(path, "no such file", remedy="Correct the path in the sample sheet")


def unreadable(path: str, detail: object) -> VolumeError:
    """Return the error for a source of a format that is not read, or with a broken header."""
    return VolumeError(path, f"cannot be read as an image ({detail})", formats_in_words())


def not_one_number(path: str, content: str) -> VolumeError:
    """Return the error for an image with something else than one real number per voxel."""
    remedy = "" if "layers" not in content else "Choose one, or in 3D Slicer export the segmentation as a label map"
    return VolumeError(path, f"holds {content}", "one real number per voxel", remedy)


def not_3d(path: str, shape: tuple[int, ...]) -> VolumeError:
    """Return the error for an image of fewer or more than three dimensions."""
    return VolumeError(
        path,
        f"has {len(shape)} dimensions {tuple(shape)}",
        "a 3D volume",
        "Choose one volume of a series and store it by itself",
    )


@dataclass(frozen=True)
class Image:
    """A 3D image of any format: what its header says, and a way to its voxels.

    path: the source.
    shape: voxels along the stored axes.
    affine: (4, 4) voxel index -> world, RAS+ millimetres.
    header: a nibabel header that holds the geometry.
    load: reads the voxels in any numeric type, an array of `shape`.
    verify: raises VolumeError if the sizes of the files show that voxels are missing.
    warnings: what a reader of the results has to know.
    oriented: whether the header says where the axes point.
    sparse: whether slices at the ends, without any label, may be missing.
    """

    path: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nib.spatialimages.SpatialHeader
    load: Callable[[], np.ndarray]
    verify: Callable[[], None]
    warnings: tuple[str, ...] = ()
    oriented: bool = True
    sparse: bool = False

    def __post_init__(self) -> None:
        """Raise VolumeError if there is no voxel, or more than masks can have or memory can hold."""
        if min(self.shape) >= 1 and max(self.shape) <= MAX_SIDE and math.prod(self.shape) <= MAX_VOXELS:
            return
        raise VolumeError(
            self.path,
            f"has {' x '.join(map(str, self.shape))} voxels",
            f"1 to {MAX_SIDE} along each axis, and at most {MAX_VOXELS} in all",
        )


def geometry_header(shape: tuple[int, int, int], affine: np.ndarray) -> nib.Nifti1Header:
    """Make a NIfTI-1 header that places a grid in the scanner's space, for sources of other formats.

    A shape that it cannot hold and an affine that spans no volume are left out, since no mask is ever written on them.
    """
    header = nib.Nifti1Header()
    if min(shape) >= 0 and max(shape) <= MAX_SIDE:
        header.set_data_shape(shape)
    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0:
        header.set_qform(affine, code="scanner")
        header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return header
