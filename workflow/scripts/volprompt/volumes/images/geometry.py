"""Where voxels lie: what a header leaves out, and grids that no volume can have."""

from __future__ import annotations

from itertools import combinations

import nibabel as nib
import numpy as np

from volprompt.volumes.images.image import Image, VolumeError

# By how many of the smallest voxel edges slices may be shifted against each other, over the whole volume.
IN_PLANE = 0.5
# Voxels of electron microscopes, in millimetres, and far beyond those of any scanner.
SMALLEST_MM, LARGEST_MM = 2e-6, 1000.0
# Volume of the unit vectors along the axes at or below which they lie in one plane.
FLAT = 1e-6


def affine_without_orientation(voxel_sizes: np.ndarray) -> np.ndarray:
    """Return the (4, 4) affine of an image whose header gives voxel sizes, (3,) in millimetres, alone.

    The stored axes are taken as R, A, S, and the first voxel as the origin: method 1 of NIfTI-1 (nifti1.h). A size that
    is missing, 0 or no number, is taken as 1.
    """
    sizes = np.abs(voxel_sizes)
    return np.diag([*np.where(np.isfinite(sizes) & (sizes > 0), sizes, 1.0), 1.0])


def no_orientation(path: str, axes: str) -> str:
    """Return the warning that a header says nothing about orientation. axes: what the stored ones are taken as."""
    return f"{path}: the header says nothing about orientation; the stored axes are taken as {', '.join(axes)}"


def no_voxel_size(path: str, axes: str = "") -> str:
    """Return the warning that a header gives no voxel size, or none along these axes (a slice thickness, say)."""
    along = f" along its {axes} axis" if axes else ""
    return (
        f"{path}: the header gives no voxel size{along}; 1 mm is taken, and distances, areas and volumes are wrong "
        "where that is not so"
    )


def require_span(image: Image) -> None:
    """Raise VolumeError if the affine of an image does not span a volume, or one of voxels that no scanner makes."""
    sizes = nib.affines.voxel_sizes(image.affine)
    if np.isfinite(image.affine).all() and (sizes > 0).all():
        if sizes.min() < SMALLEST_MM or sizes.max() > LARGEST_MM:
            raise VolumeError(
                image.path,
                f"has voxels of {' x '.join(f'{size:.4g}' for size in sizes)} mm",
                f"{SMALLEST_MM:g} to {LARGEST_MM:g} mm along each axis",
                "Correct the voxel sizes in the header",
            )
        if abs(np.linalg.det(image.affine[:3, :3] / sizes)) > FLAT:
            return
    finding = f"the affine does not span a volume:\n{image.affine}\n"
    raise VolumeError(image.path, finding, remedy="Set a valid orientation in the header")


def require_right_angles(image: Image) -> None:
    """Raise VolumeError if the axes of an image are not at right angles: the grid of a tilted gantry.

    Voxel sizes, and with them distances and volumes, would not be those of the header. What a rounded affine shifts
    slices by, less than half of the smallest voxel edge over the whole volume, is let pass.
    """
    sizes = nib.affines.voxel_sizes(image.affine)
    directions = image.affine[:3, :3] / sizes
    for first, second in combinations(range(3), 2):
        cosine = abs(float(directions[:, first] @ directions[:, second]))
        shift = cosine * max((image.shape[axis] - 1) * sizes[axis] for axis in (first, second))
        if shift > IN_PLANE * sizes.min():
            angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
            raise VolumeError(
                image.path,
                f"its stored axes {first} and {second} are at an angle of {angle:.3g} degrees (a tilted gantry)",
                "a grid at right angles",
                "Resample it, for example with dcm2niix",
            )
