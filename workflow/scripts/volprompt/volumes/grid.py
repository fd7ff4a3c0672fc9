"""Volumes of any supported format become frames, and masks of frames go back onto the grid of the source.

A *frame* is a slice as the model sees it. The frames of a volume form an array (slice, y, x): for sagittal slices the
slice index grows towards the right of the patient, y from superior to inferior and x from anterior to posterior, which
for a volume stored with axes R, A, S is `frames[slice] = volume[slice, ::-1, ::-1].T`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel import orientations

from volprompt.volumes.images.geometry import require_right_angles, require_span
from volprompt.volumes.images.image import Image

# Frames with a smaller side, or with more slices than so many times their smaller side, are unusual.
FEW_PIXELS, MANY_SLICES = 32, 4
# Directions in which (slice, y, x) grow, as the eye expects the plane: the patient's front or head up or to the left.
FRAME_AXES = {"sagittal": "RIP", "coronal": "AIL", "axial": "SPL"}


@dataclass(frozen=True)
class Grid:
    """The grid of a stored volume, and the way between it and its frames.

    shape: voxels along the stored axes.
    affine: (4, 4) voxel index -> world, RAS+ millimetres.
    axes: three letters, the directions in which slice, y and x of the frames grow.
    header: the geometry of the source as a NIfTI-1 header, for its masks, without free text and extensions.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    axes: str
    header: bytes

    @property
    def frames_shape(self) -> tuple[int, int, int]:
        """Voxels along (slice, y, x)."""
        frames_axes = self._transform_to_frames()[:, 0].astype(int)
        shape = [0, 0, 0]
        for axis, frames_axis in enumerate(frames_axes):
            shape[frames_axis] = self.shape[axis]
        return shape[0], shape[1], shape[2]

    @property
    def frames_affine(self) -> np.ndarray:
        """(4, 4) frame index (slice, y, x) -> world, RAS+ millimetres."""
        return self.affine @ orientations.inv_ornt_aff(self._transform_to_frames(), self.shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbours along (slice, y, x)."""
        slice_mm, y_mm, x_mm = nib.affines.voxel_sizes(self.frames_affine)
        return float(slice_mm), float(y_mm), float(x_mm)

    def to_frames(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array on the stored grid as (slice, y, x)."""
        return orientations.apply_orientation(array, self._transform_to_frames())

    def to_source(self, frames: np.ndarray) -> np.ndarray:
        """Return a view of an array (slice, y, x) on the stored grid."""
        from_frames = orientations.ornt_transform(_orientation_of(self.axes), orientations.io_orientation(self.affine))
        return orientations.apply_orientation(frames, from_frames)

    def _transform_to_frames(self) -> np.ndarray:
        return orientations.ornt_transform(orientations.io_orientation(self.affine), _orientation_of(self.axes))


def _orientation_of(axes: str) -> np.ndarray:
    """Return nibabel's orientation array, (3, 2), of axes that grow in these directions."""
    return orientations.axcodes2ornt(tuple(axes))


def unusual_frames(image: Image, axis: str | int) -> str:
    """Say what is unusual about the frames along an axis, and which frames the other planes give; empty if nothing is.

    A side of few pixels, or many more slices than pixels along a side: then the axis is often not the one that was
    meant. Errors as `grid_of`.
    """
    slices, *sides = grid_of(image, axis).frames_shape
    if min(sides) >= FEW_PIXELS and slices <= MANY_SLICES * min(sides):
        return ""
    of_planes = {plane: " of {} x {}".format(*grid_of(image, plane).frames_shape[1:]) for plane in FRAME_AXES}
    here = f" of {sides[0]} x {sides[1]}"
    others = ", ".join(f"{plane}{sizes}" for plane, sizes in of_planes.items() if sizes != here)
    return f"{slices} frames{here} pixels along axis {axis}" + (f"; frames.axis could be {others}" if others else "")


def grid_of(image: Image, axis: str | int) -> Grid:
    """Describe the grid of a 3D image. axis: the name of a plane or the number of a stored axis.

    A stored axis gives the frames of the anatomical plane that it is closest to. Raises VolumeError if the affine does
    not span a volume, or has axes that are not at right angles.
    """
    require_span(image)
    require_right_angles(image)
    if isinstance(axis, int):
        code = orientations.aff2axcodes(image.affine)[axis]
        axis = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}.get(code, "axial")
    header = nib.Nifti1Header.from_header(image.header, check=False)
    header.extensions.clear()
    for text in ("descrip", "aux_file", "db_name", "intent_name"):
        header[text] = b""  # may hold what identifies a patient
    stream = io.BytesIO()
    header.write_to(stream)
    return Grid(image.shape, image.affine, FRAME_AXES[axis], stream.getvalue())
