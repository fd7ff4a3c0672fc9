"""DICOM segmentations (DICOM-SEG) as label maps, read by highdicom: the label of a voxel is its segment's number."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np

from volprompt.volumes.images.archives import Member
from volprompt.volumes.images.image import LPS_TO_RAS, Image, VolumeError, damaged, geometry_header


def open_segmentation(members: Sequence[Member], path: str) -> Image:
    """Describe the only segmentation among `members` as a label map. path: of the source, for messages.

    Slices without any segment may be missing in the file: the image is marked as `sparse`. Raises VolumeError for
    several segmentations, fractions, and frames that make up no volume.
    """
    if len(members) > 1:
        names = ", ".join(member.name for member in members[:3])
        raise VolumeError(path, f"holds {len(members)} segmentations ({names})", "one", "Name the file of one of them")
    (member,) = members
    try:
        stored = highdicom.seg.segread(member.path)
        fractional = stored.segmentation_type.value == "FRACTIONAL"
        geometry = stored.get_volume_geometry(allow_missing_positions=True)
    except Exception as error:  # its text may quote the header
        raise damaged(path, f"header of {member.name}: {type(error).__name__}") from None
    if fractional:
        raise VolumeError(
            path, f"{member.name} holds fractions of segments", "a segmentation of type BINARY or LABELMAP"
        )
    if geometry is None:
        raise VolumeError(path, f"the frames of {member.name} make up no volume", "slices at equal distances")
    affine, flipped = _ours(np.asarray(geometry.affine), geometry.spatial_shape)
    slices, rows, columns = geometry.spatial_shape

    def load() -> np.ndarray:
        try:
            volume = stored.get_volume(combine_segments=True, allow_missing_positions=True)
        except RuntimeError:
            raise VolumeError(
                path,
                f"segments of {member.name} overlap",
                "one label per voxel",
                "Export it as a label map, with the structure in front that is to be scored",
            ) from None
        except Exception:
            raise damaged(path, f"the pixels of {member.name} cannot be decoded") from None
        labels = np.asarray(volume.array)
        return (labels[::-1] if flipped else labels).T

    shape = columns, rows, slices
    return Image(path, shape, affine, geometry_header(shape, affine), load, lambda: None, sparse=True)


def _ours(affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Turn an affine of (slice, row, column) in L, P, S into one of (column, row, slice) in R, A, S.

    Slices are counted along the normal, as those of a series are. Returns it, and whether their order is turned round.
    """
    lps = affine[:, [2, 1, 0, 3]].astype(float)
    flipped = bool(np.linalg.det(lps[:3, :3]) < 0)
    if flipped:
        lps[:3, 3] += lps[:3, 2] * (shape[0] - 1)
        lps[:3, 2] *= -1
    return LPS_TO_RAS @ lps, flipped
