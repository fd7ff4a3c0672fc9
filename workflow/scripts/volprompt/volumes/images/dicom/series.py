"""One stack of DICOM planes, or one DICOM segmentation, as an image. Header texts go nowhere but into messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK as sitk

from volprompt.volumes.images.archives import Member, members_of
from volprompt.volumes.images.dicom.planes import Plane, read_contents
from volprompt.volumes.images.dicom.segmentations import open_segmentation
from volprompt.volumes.images.dicom.stacks import choose_stack, group_into_stacks, require_usable, slice_distance
from volprompt.volumes.images.formats import format_of
from volprompt.volumes.images.image import LPS_TO_RAS, Image, VolumeError, damaged, geometry_header, unreadable

sitk.ProcessObject.SetGlobalWarningDisplay(False)


@contextmanager
def open_series(path: str, series: str = "", labels: bool = False) -> Iterator[Image]:
    """Open one series of a folder, an archive or a file, see `read_series`; an archive is unpacked meanwhile."""
    with members_of(path) as members:
        yield read_series(members, path, series, labels)


def read_series(members: Sequence[Member], path: str, series: str = "", labels: bool = False) -> Image:
    """Describe the one series among `members`, or the one that `series` chooses, as a volume. Reads headers only.

    series: a SeriesInstanceUID or its end of at least 6 characters, a series number, or a SeriesDescription (`*` stands
    for anything, case does not matter); `@2` behind it chooses echo 2. Empty if there is only one series.
    labels: whether a segmentation is preferred to images.

    Raises VolumeError unless exactly one stack of planes at equal distances is left.
    """
    contents = read_contents(members, path)
    if contents.segmentations and (labels or not contents.planes):
        return open_segmentation(contents.segmentations, path)
    if not contents.planes:
        if contents.contours:
            raise VolumeError(
                path,
                f"{contents.contours[0].name} holds contours (RTSTRUCT)",
                "a label map, or a DICOM segmentation",
                "Draw them into a label map on the image's grid, for example with dcmrtstruct2nii",
            )
        kind = "folder" if Path(path).is_dir() else "archive" if format_of(path) else "file"
        count = "" if kind == "file" else f"{len(members)} files and "
        raise unreadable(path, f"the {kind} holds {count}no DICOM image")
    chosen = choose_stack(group_into_stacks(contents.planes), path, series)
    require_usable(chosen, path)
    ordered = sorted(chosen, key=lambda one: float(one.position @ chosen[0].normal))
    step = slice_distance(ordered, path)
    first = ordered[0]
    assert first.axes is not None
    assert first.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.position
    affine = LPS_TO_RAS @ affine
    shape = first.columns, first.rows, len(ordered)
    warnings = []
    if (series_count := len({one.series for one in chosen})) > 1:
        warnings.append(
            f"{path}: {series_count} series of one description, whose slices lie between each other, are one volume"
        )
    if first.inverted:
        warnings.append(f"{path}: large values are shown dark (MONOCHROME1); the sign of all values is changed")
    return Image(
        path,
        shape,
        affine,
        geometry_header(shape, affine),
        lambda: _read_voxels(ordered, path),
        lambda: None,
        tuple(warnings),
    )


def _read_voxels(ordered: Sequence[Plane], path: str) -> np.ndarray:
    """Read float32 (column, row, slice), with the rescale slope and intercept of every plane."""
    first = ordered[0]
    voxels = np.empty((first.columns, first.rows, len(ordered)), np.float32, order="F")
    in_files = sorted(range(len(ordered)), key=lambda index: (str(ordered[index].member.path), ordered[index].frame))
    for _, of_file in groupby(in_files, key=lambda index: ordered[index].member.path):
        indices = list(of_file)
        planes = _read_planes([ordered[index] for index in indices], path)
        voxels[:, :, indices] = planes.T
    return voxels


def _read_planes(planes: Sequence[Plane], path: str) -> np.ndarray:
    """Read planes of one file: (plane, row, column). Raises VolumeError if they cannot be decoded."""
    one = planes[0]
    try:
        if one.enhanced or one.shown == "MONOCHROME1":
            # GDCM takes the first frame's slope and intercept for all, and turns stored numbers of MONOCHROME1 around.
            stored = highdicom.imread(one.member.path)
            frames = stored.get_frames([plane.frame + 1 for plane in planes], apply_presentation_lut=False)
            pixels = -frames if one.inverted else frames
        else:
            image = sitk.ReadImage(str(one.member.path), sitk.sitkFloat32, imageIO="GDCMImageIO")
            pixels = sitk.GetArrayFromImage(image)
    except Exception:  # whatever a decoder raises; its text may quote the header
        raise damaged(path, f"the pixels of {one.member.name} cannot be decoded") from None
    if pixels.size != len(planes) * one.rows * one.columns:
        raise damaged(path, f"{one.member.name} has {pixels.size} pixels")
    return pixels.reshape(len(planes), one.rows, one.columns)
