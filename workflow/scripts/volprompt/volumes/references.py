"""Reference label maps, on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nibabel as nib
import numpy as np
from nibabel import orientations

from volprompt.volumes.grid import require_span
from volprompt.volumes.images.image import Image, VolumeError
from volprompt.volumes.images.opening import read_voxels

# Share of the smallest voxel edge by which a corner of the reference's grid may lie off the image's.
GRID_TOLERANCE = 0.1
# Distance from the next whole number up to which a stored label value counts as one.
LABEL_TOLERANCE = 1e-3


def read_labels(reference: Image, image: Image, resample: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Read a reference label map as integers on the image's stored grid. Returns it and warnings.

    resample: `nearest` gives each voxel of the image the label of the reference's nearest voxel, and 0 outside of it,
    where the grids differ. Raises VolumeError where they differ otherwise (shape, or a corner that lies off by more
    than a tenth of a voxel), and for values that are no whole numbers >= 0.
    """
    require_reference_grid(reference, image, resample)
    voxels = read_voxels(reference)
    labels = np.rint(voxels)
    off = np.abs(voxels - labels) > LABEL_TOLERANCE
    if off.any() or labels.min() < 0:
        found = voxels[off][0] if off.any() else voxels.min()
        raise VolumeError(reference.path, f"holds the value {found:g}", "label numbers, whole and not negative")
    if labels.max() > np.iinfo(np.uint16).max:
        raise VolumeError(reference.path, f"holds the label {labels.max():.0f}", "at most 65535")
    labels = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
    if _corners_apart(reference, image) is None:
        return labels, []
    warning = (
        f"{reference.path}: resampled to the nearest voxel of {image.path}: from {_describe(reference)} "
        f"to {_describe(image)}"
    )
    return _nearest(labels, reference, image), [warning]


def _nearest(labels: np.ndarray, reference: Image, image: Image) -> np.ndarray:
    from scipy import ndimage

    to_reference = np.linalg.inv(reference.affine) @ image.affine
    return ndimage.affine_transform(
        labels, to_reference[:3, :3], to_reference[:3, 3], image.shape, order=0, mode="grid-constant", cval=0
    )


def _corners_apart(reference: Image, image: Image) -> float | None:
    """Millimetres between the corners of two grids, or None where they count as one grid."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in image.shape])).reshape(3, -1).T
    apart = np.linalg.norm(
        nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(reference.affine, corners), axis=1
    ).max()
    return None if reference.shape == image.shape and apart <= _tolerance(image) else float(apart)


def _tolerance(image: Image) -> float:
    """Millimetres by which a corner of the reference's grid may lie off the image's."""
    return GRID_TOLERANCE * float(np.min(nib.affines.voxel_sizes(image.affine)))


def require_reference_grid(reference: Image, image: Image, resample: str | None = None) -> None:
    """Raise VolumeError, with both grids, where a reference can neither be taken as it is nor be resampled."""
    if resample is not None:
        require_span(reference)
        return
    apart = _corners_apart(reference, image)
    if apart is None:
        return
    raise VolumeError(
        reference.path,
        f"lies on another grid than {image.path}\n"
        f"  image:     {_describe(image)}\n  reference: {_describe(reference)}\n"
        f"  corners differ by up to {apart:.3g} mm",
        f"the same shape and at most {_tolerance(image):.3g} mm",
        "Resample the reference onto the image's grid (nearest neighbour), or set references: {resample: nearest}",
    )


def _describe(image: Image) -> str:
    spacing = " x ".join(f"{size:.4g}" for size in nib.affines.voxel_sizes(image.affine))
    origin = ", ".join(f"{value:.4g}" for value in image.affine[:3, 3])
    axes = "".join(orientations.aff2axcodes(image.affine))
    return f"{' x '.join(map(str, image.shape))} voxels of {spacing} mm, axes {axes}, origin ({origin})"


def keep_structures(labels: np.ndarray, structures: Mapping[str, Sequence[int]], path: str) -> tuple[np.ndarray, list]:
    """Set labels that belong to no structure to 0. Returns the label map and warnings.

    Raises VolumeError where no structure at all is in the map.
    """
    present = {int(value) for value in np.unique(labels)} - {0}
    wanted = {label for numbers in structures.values() for label in numbers}
    if not present & wanted:
        raise VolumeError(
            path,
            f"holds the labels {sorted(present)}, none of the configured {sorted(wanted)}",
            remedy="Correct structures.*.labels or the reference",
        )
    warnings = []
    if others := sorted(present - wanted):
        warnings.append(f"{path}: label(s) {', '.join(map(str, others))} belong to no structure and are left out")
    for name, numbers in structures.items():
        if numbers and not present & set(numbers):
            warnings.append(f"{path}: structure '{name}' (labels {list(numbers)}) is empty")
    return np.where(np.isin(labels, sorted(wanted)), labels, 0).astype(labels.dtype), warnings


def structure_mask(reference: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The voxels of a structure: bool, like `reference`."""
    if len(labels) == 1:
        return reference == labels[0]
    return np.isin(reference, list(labels))
