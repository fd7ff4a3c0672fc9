"""Reference label maps, on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np
from nibabel import orientations

from volprompt.volumes.images.geometry import require_right_angles, require_span
from volprompt.volumes.images.image import Image, VolumeError
from volprompt.volumes.images.opening import read_voxels

# Share of the smallest voxel edge by which a corner of the reference's grid may lie off the image's.
GRID_TOLERANCE = 0.1
# Distance from the next whole number up to which a stored label value counts as one.
LABEL_TOLERANCE = 1e-3
# Remarks that tell what was done as configured, by their words.
LEFT_OUT = "belong to no structure and are left out"
RESAMPLED = "resampled to the nearest voxel of"


def read_labels(reference: Image, image: Image, resample: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Read a reference label map as integers on the image's stored grid. Returns it and warnings.

    resample: `nearest` resamples a reference on another grid: each voxel of the image gets the label of the reference's
    nearest voxel, and 0 outside of it. Raises VolumeError if the grids differ otherwise (in shape, or in a corner by
    more than a tenth of a voxel), and for values that are no whole numbers >= 0.
    """
    reference = require_reference_grid(reference, image, resample)
    voxels = read_voxels(reference)
    label_map = np.rint(voxels)
    off = np.abs(voxels - label_map) > LABEL_TOLERANCE
    if off.any() or label_map.min() < 0:
        value = voxels[off][0] if off.any() else voxels.min()
        raise VolumeError(reference.path, f"holds the value {value:g}", "label numbers, whole and not negative")
    if label_map.max() > np.iinfo(np.uint16).max:
        raise VolumeError(reference.path, f"holds the label {label_map.max():.0f}", "at most 65535")
    label_map = label_map.astype(np.uint8 if label_map.max() < 256 else np.uint16)
    if _corner_distance(reference, image) is None:
        return label_map, []
    warning = f"{reference.path}: {RESAMPLED} {image.path}: from {_describe(reference)} to {_describe(image)}"
    return _resample_nearest(label_map, reference, image), [warning]


def _with_all_slices(reference: Image, image: Image) -> Image:
    """Return a sparse reference with the slices of the image that it lacks at its ends, as background.

    That is done where its slices are slices of the image; else it is returned as it is.
    """
    if not reference.sparse or reference.shape[:2] != image.shape[:2]:
        return reference
    affine = reference.affine.copy()
    if reference.shape[2] == 1:  # nothing says how far its neighbours would be
        affine[:3, 2] = image.affine[:3, 2]
    offset = float((np.linalg.inv(image.affine) @ affine)[2, 3])
    before = round(offset)
    after = image.shape[2] - before - reference.shape[2]
    if min(before, after) < 0 or (before, after) == (0, 0):
        return reference
    affine[:3, 3] -= before * affine[:3, 2]

    def load() -> np.ndarray:
        return np.pad(reference.load(), [(0, 0), (0, 0), (before, after)])

    return replace(reference, shape=image.shape, affine=affine, load=load)


def _resample_nearest(label_map: np.ndarray, reference: Image, image: Image) -> np.ndarray:
    """Return the label map on the image's grid: the nearest voxel's label, and 0 outside of the reference."""
    from scipy import ndimage

    to_reference = np.linalg.inv(reference.affine) @ image.affine
    return ndimage.affine_transform(
        label_map, to_reference[:3, :3], to_reference[:3, 3], image.shape, order=0, mode="grid-constant", cval=0
    )


def _corner_distance(reference: Image, image: Image) -> float | None:
    """Return the largest distance between corresponding corners, in millimetres; None if the grids count as one."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in image.shape])).reshape(3, -1).T
    apart = np.linalg.norm(
        nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(reference.affine, corners), axis=1
    ).max()
    return None if reference.shape == image.shape and apart <= _corner_tolerance(image) else float(apart)


def _corner_tolerance(image: Image) -> float:
    """Return the millimetres by which a corner of the reference's grid may differ from the image's."""
    return GRID_TOLERANCE * float(np.min(nib.affines.voxel_sizes(image.affine)))


def require_reference_grid(reference: Image, image: Image, resample: str | None = None) -> Image:
    """Return a reference with all slices of its image; what it lacks at its ends is background.

    Raises VolumeError, with both grids, if it can neither be used as it is nor be resampled.
    """
    require_span(reference)
    require_right_angles(reference)
    reference = _with_all_slices(reference, image)
    apart = _corner_distance(reference, image)
    if apart is None:
        return reference
    if reference.oriented != image.oriented:
        without = image if reference.oriented else reference
        raise VolumeError(
            reference.path,
            f"cannot be compared with {image.path}, since the header of {without.path} says nothing about orientation",
            "both with an orientation, or both without",
            f"Write the orientation into the header of {without.path}",
        )
    if resample is not None:
        return reference
    raise VolumeError(
        reference.path,
        f"lies on another grid than {image.path}\n"
        f"  image:     {_describe(image)}\n  reference: {_describe(reference)}\n"
        f"  corners differ by up to {apart:.3g} mm",
        f"the same shape and at most {_corner_tolerance(image):.3g} mm",
        "Resample the reference onto the image's grid (nearest neighbour), or set references: {resample: nearest}",
    )


def _describe(image: Image) -> str:
    spacing = " x ".join(f"{size:.4g}" for size in nib.affines.voxel_sizes(image.affine))
    origin = ", ".join(f"{value:.4g}" for value in image.affine[:3, 3])
    axes = "".join(orientations.aff2axcodes(image.affine))
    return f"{' x '.join(map(str, image.shape))} voxels of {spacing} mm, axes {axes}, origin ({origin})"


def keep_structures(
    label_map: np.ndarray, labels: Mapping[str, Sequence[int]], path: str, ignored: Sequence[int] = ()
) -> tuple[np.ndarray, list[str], list[int]]:
    """Set labels that belong to no structure and are not ignored to 0. Returns label map, warnings, and those labels.

    labels: label numbers by structure; path: of the reference, for messages; ignored: label numbers of voxels that no
    score counts. Raises VolumeError if the map shows none of the structures.
    """
    present = {int(value) for value in np.unique(label_map)} - {0}
    configured = {number for numbers in labels.values() for number in numbers}
    if not present & configured:
        raise VolumeError(
            path,
            f"holds the labels {sorted(present)}, none of the configured {sorted(configured)}",
            remedy="Correct structures.*.labels or the reference",
        )
    warnings = []
    kept = configured | set(ignored)
    if others := sorted(present - kept):
        warnings.append(f"{path}: label(s) {', '.join(map(str, others))} {LEFT_OUT}")
    for name, numbers in labels.items():
        if numbers and not present & set(numbers):
            warnings.append(f"{path}: structure '{name}' (labels {list(numbers)}) is empty")
    return np.where(np.isin(label_map, sorted(kept)), label_map, 0).astype(label_map.dtype), warnings, others


def is_notice(remark: str) -> bool:
    """Return whether a remark on a volume tells what was done as configured; any other asks the reader to look."""
    return remark.endswith(LEFT_OUT) or f": {RESAMPLED} " in remark


def structure_mask(reference: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Return the voxels of a structure: bool, of the label map's shape. numbers: the structure's labels."""
    if len(numbers) == 1:
        return reference == numbers[0]
    return np.isin(reference, list(numbers))
