"""Volumes of any supported format become frames, and masks of frames go back onto the volume's own grid.

A *frame* is a slice as the model sees it. The frames of a volume form an array (slice, y, x): for sagittal slices the
slice index grows towards the right of the patient, y from superior to inferior and x from anterior to posterior, which
for a volume stored with axes R, A, S is `frames[slice] = volume[slice, ::-1, ::-1].T`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel import orientations

from volprompt.files import atomic, write_table
from volprompt.images.formats import open_image, read_voxels
from volprompt.images.image import Image, VolumeError
from volprompt.images.sources import sha256_of_source
from volprompt.logs import Progress, logger

# Directions in which (slice, y, x) grow, as the eye expects the plane: the patient's front or head up or to the left.
FRAME_AXES = {"sagittal": "RIP", "coronal": "AIL", "axial": "SPL"}
# Share of the smallest voxel edge by which a corner of the reference's grid may lie off the image's.
GRID_TOLERANCE = 0.1
# Distance from the next whole number up to which a stored label value counts as one.
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """The grid of a stored volume, and the way between it and its frames.

    shape: voxels along the stored axes; affine: (4, 4) voxel index -> world, RAS+ millimetres; axes: three letters, the
    direction in which slice, y and x of the frames grow; header: the geometry of the source as a NIfTI-1 header, for
    its masks, without free text and extensions.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    axes: str
    header: bytes

    @property
    def frames_shape(self) -> tuple[int, int, int]:
        """Voxels along (slice, y, x)."""
        stored = self._to_frames()[:, 0].astype(int)
        shape = [0, 0, 0]
        for axis, frames_axis in enumerate(stored):
            shape[frames_axis] = self.shape[axis]
        return shape[0], shape[1], shape[2]

    @property
    def frames_affine(self) -> np.ndarray:
        """(4, 4) frame index (slice, y, x) -> world, RAS+ millimetres."""
        return self.affine @ orientations.inv_ornt_aff(self._to_frames(), self.shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbours along (slice, y, x)."""
        slice_mm, y_mm, x_mm = nib.affines.voxel_sizes(self.frames_affine)
        return float(slice_mm), float(y_mm), float(x_mm)

    def to_frames(self, array: np.ndarray) -> np.ndarray:
        """View an array on the stored grid as (slice, y, x)."""
        return orientations.apply_orientation(array, self._to_frames())

    def to_source(self, frames: np.ndarray) -> np.ndarray:
        """View an array (slice, y, x) on the stored grid."""
        back = orientations.ornt_transform(_wanted(self.axes), orientations.io_orientation(self.affine))
        return orientations.apply_orientation(frames, back)

    def _to_frames(self) -> np.ndarray:
        return orientations.ornt_transform(orientations.io_orientation(self.affine), _wanted(self.axes))


def _wanted(axes: str) -> np.ndarray:
    return orientations.axcodes2ornt(tuple(axes))


def grid_of(image: Image, axis: str | int) -> Grid:
    """Describe the grid of a 3D image. `axis` is a plane's name or the number of a stored axis.

    A stored axis gives the frames of the anatomical plane that it is closest to. Raises VolumeError for an affine that
    does not span a volume.
    """
    _require_span(image)
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


def _require_span(image: Image) -> None:
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        finding = f"the affine does not span a volume:\n{image.affine}\n"
        raise VolumeError(image.path, finding, remedy="Set a valid orientation in the header")


def window(voxels: np.ndarray, percentiles: Sequence[float], path: str) -> tuple[np.ndarray, float, float]:
    """Scale to 8 bit: the two percentiles of the whole volume become 0 and 255, values beyond are clipped.

    Rounds to the nearest grey value. Returns the uint8 array and the two intensities. Raises VolumeError for an image
    without contrast.
    """
    low, high = (float(value) for value in np.percentile(voxels, percentiles))
    if not high > low:
        raise VolumeError(
            path,
            f"the {percentiles[0]} and {percentiles[1]} percentiles of the intensities are both {low:g} "
            f"(range {voxels.min():g} to {voxels.max():g}): no contrast is left",
            remedy="Use another image or wider frames.intensity_percentiles",
        )
    scaled = np.clip(voxels, low, high)
    scaled -= low
    scaled *= 255.0 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8), low, high


def jpeg75(frames: np.ndarray) -> np.ndarray:
    """Send each frame (uint8) through JPEG at quality 75, as the paper's code stored them."""
    from PIL import Image

    decoded = np.empty_like(frames)
    for index, frame in enumerate(frames):
        stream = io.BytesIO()
        Image.fromarray(frame).convert("RGB").save(stream, format="JPEG", quality=75)
        decoded[index] = np.asarray(Image.open(stream).convert("L"))
    return decoded


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
        _require_span(reference)
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


def convert_volume(
    row: Mapping[str, str],
    frames: Mapping[str, Any],
    structures: Mapping[str, Sequence[int]],
    folder: Path,
    resample: str | None = None,
) -> dict[str, Any]:
    """Write a volume's frames and reference into `folder`; return its row of the volume table.

    row: volume, image, reference, and series where the image's DICOM files hold several; frames: axis,
    intensity_percentiles, coding; structures: name -> labels; resample: `nearest` for references on other grids, which
    are refused without it. Raises VolumeError.
    """
    with open_image(row["image"], row.get("series", "")) as image:
        warnings = list(image.warnings)
        grid = grid_of(image, frames["axis"])
        grey, low, high = window(read_voxels(image), frames["intensity_percentiles"], image.path)
    shown = grid.to_frames(grey)
    if frames["coding"] == "jpeg75":
        shown = jpeg75(shown)
    reference_sha256 = ""
    if row["reference"]:
        with open_image(row["reference"]) as reference:
            labels, resampled = read_labels(reference, image, resample)
        labels, found = keep_structures(labels, structures, row["reference"])
        warnings += resampled + found
        reference_sha256 = sha256_of_source(row["reference"])
        save_nifti(grid.to_frames(labels), grid.frames_affine, folder / f"{row['volume']}_reference.nii.gz")
    save_nifti(shown, grid.frames_affine, folder / f"{row['volume']}_frames.nii")
    return {
        "status": "ok",
        "sha256": sha256_of_source(row["image"]),
        "reference_sha256": reference_sha256,
        "shape": list(grid.frames_shape),
        "spacing": list(grid.spacing),
        "orientation": "".join(orientations.aff2axcodes(grid.affine)),
        "frame_axes": grid.axes,
        "source_shape": list(grid.shape),
        "source_affine": grid.affine.ravel().tolist(),
        "source_header": grid.header,
        "window_low": low,
        "window_high": high,
        "warnings": warnings,
    }


# Columns of the volume table: what is known of every volume, then what only a converted one has.
VOLUME_COLUMNS = {
    "volume": "",
    "status": "failed",
    "reason": "",
    "source": "",
    "reference": "",
    "sha256": "",
    "reference_sha256": "",
    "shape": None,
    "spacing": None,
    "orientation": "",
    "frame_axes": "",
    "source_shape": None,
    "source_affine": None,
    "source_header": None,
    "window_low": float("nan"),
    "window_high": float("nan"),
    "warnings": None,
}


def convert_shard(
    rows: Sequence[Mapping[str, str]],
    frames: Mapping[str, Any],
    structures: Mapping[str, Sequence[int]],
    folder: str | Path,
    resample: str | None = None,
) -> None:
    """Convert a shard's volumes into `folder` and write its `volumes.parquet`; arguments as in `convert_volume`.

    A volume that fails keeps its row, with status `failed` and the reason; the others are converted.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(len(rows))
    table = []
    for row in rows:
        known = {
            "volume": row["volume"],
            "source": row["image"],
            "reference": row["reference"],
        }
        try:
            made = convert_volume(row, frames, structures, folder, resample)
            for warning in made["warnings"]:
                logger.info("warning: %s", warning)  # not on the console: often every volume has the same ones
            what = f"{' x '.join(map(str, made['shape']))} frames"
        except VolumeError as error:
            made = {"status": "failed", "reason": str(error)}
            logger.error("FAILED: volume %s: %s", row["volume"], error)
            what = "FAILED"
        except (MemoryError, OSError):  # the machine's fault: a full disk, say
            raise
        except Exception as error:
            logger.error("FAILED: volume %s", row["volume"], exc_info=error)
            made = {"status": "failed", "reason": f"{row['image']}: {type(error).__name__}: {error}"}
            what = "FAILED"
        table.append({**VOLUME_COLUMNS, **known, **made})
        progress.step(row["volume"], what)
    write_table(pd.DataFrame(table), folder / "volumes.parquet")


def read_volume_table(folder: str | Path) -> pd.DataFrame:
    """Read the volume table of a converted shard: one row per volume, failed ones included."""
    return pd.read_parquet(Path(folder) / "volumes.parquet")


def grid_of_row(row: Any) -> Grid:
    """The grid of a converted volume, from its row of the volume table."""
    shape = tuple(int(size) for size in row.source_shape)
    return Grid(
        (shape[0], shape[1], shape[2]), np.reshape(row.source_affine, (4, 4)), row.frame_axes, row.source_header
    )


def read_frames(folder: str | Path, volume: str) -> np.ndarray:
    """Read a volume's frames: uint8 (slice, y, x)."""
    return _stored(Path(folder) / f"{volume}_frames.nii")


def read_reference(folder: str | Path, volume: str) -> np.ndarray | None:
    """Read a volume's reference label map on the grid of its frames, or None where it has none."""
    path = Path(folder) / f"{volume}_reference.nii.gz"
    return _stored(path) if path.exists() else None


def structure_mask(reference: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The voxels of a structure: bool, like `reference`."""
    if len(labels) == 1:
        return reference == labels[0]
    return np.isin(reference, list(labels))


def save_nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write an array with its affine (millimetres), atomically."""
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    image.header.set_xyzt_units("mm")
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _stored(path: Path) -> np.ndarray:
    image: Any = nib.load(path, mmap=False)  # read now, by whoever asks, and not when the voxels are used
    return np.asarray(image.dataobj)
