"""Volumes of any supported format become frames, and masks of frames go back onto the volume's own grid.

A *frame* is a slice as the model sees it. The frames of a volume form an array (slice, y, x): for sagittal slices the
slice index grows towards the right of the patient, y from superior to inferior and x from anterior to posterior, which
for a volume stored with axes R, A, S is `frames[slice] = volume[slice, ::-1, ::-1].T`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from volprompt.errors import VolpromptError
from volprompt.files import atomic, sha256_of, write_table
from volprompt.logs import Progress, logger

# Directions in which (slice, y, x) grow, as the eye expects the plane: the patient's front or head up or to the left.
FRAME_AXES = {"sagittal": "RIP", "coronal": "AIL", "axial": "SPL"}
# Share of the smallest voxel edge by which a corner of the reference's grid may lie off the image's.
GRID_TOLERANCE = 0.1
# Distance from the next whole number up to which a stored label value counts as one.
LABEL_TOLERANCE = 1e-3
# What reading the voxels of a damaged file raises.
BROKEN = (OSError, EOFError, ValueError, zlib.error)


class VolumeError(VolpromptError):
    """A volume that cannot be used: the file, what was found, what was expected, what to do."""


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


def grid_of(image: nib.spatialimages.SpatialImage, axis: str | int, path: str) -> Grid:
    """Describe the grid of a 3D image. `axis` is a plane's name or the number of a stored axis.

    A stored axis gives the frames of the anatomical plane that it is closest to. Raises VolumeError for an affine that
    does not span a volume.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError(
            f"{path}: the affine does not span a volume:\n{affine}\nSet a valid orientation in the header."
        )
    if isinstance(axis, int):
        code = orientations.aff2axcodes(affine)[axis]
        axis = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}.get(code, "axial")
    header = nib.Nifti1Header.from_header(image.header, check=False)
    header.extensions.clear()
    for text in ("descrip", "aux_file", "db_name", "intent_name"):
        header[text] = b""  # may hold what identifies a patient
    stream = io.BytesIO()
    header.write_to(stream)
    shape = image.shape[0], image.shape[1], image.shape[2]
    return Grid(shape, affine, FRAME_AXES[axis], stream.getvalue())


def load_image(path: str) -> nib.spatialimages.SpatialImage:
    """Open a 3D image without reading its voxels. Raises VolumeError for anything that is not one."""
    try:
        image: Any = nib.load(path)
    except FileNotFoundError:
        raise VolumeError(f"{path}: no such file") from None
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise VolumeError(f"{path}: cannot be read as an image ({error}); expected NIfTI (.nii, .nii.gz)") from None
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise VolumeError(f"{path}: is no image but {type(image).__name__}; expected NIfTI (.nii, .nii.gz)")
    if image.get_data_dtype().kind not in "iufb":
        raise VolumeError(f"{path}: holds colours or complex numbers; expected one real number per voxel")
    if len(image.shape) == 4 and image.shape[3] == 1:
        try:
            image = nib.funcs.squeeze_image(image)  # reads the voxels
        except BROKEN as error:
            raise _damaged(path, error) from None
    if len(image.shape) != 3:
        raise VolumeError(
            f"{path}: has {len(image.shape)} dimensions {image.shape}; expected a 3D volume. Choose one volume of a "
            "series and store it by itself."
        )
    return image


def _damaged(path: str, error: Exception) -> VolumeError:
    return VolumeError(f"{path}: the file is damaged or cut off ({error}); copy it again")


def read_voxels(image: nib.spatialimages.SpatialImage, path: str) -> np.ndarray:
    """Read the voxels as float32 on the stored grid. Raises VolumeError for a broken file, NaN or infinite values."""
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except BROKEN as error:
        raise _damaged(path, error) from None
    finite = np.isfinite(voxels)
    if not finite.all():
        count = int(voxels.size - finite.sum())
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise VolumeError(
            f"{path}: {count} voxels are NaN or infinite, the first at {first}; expected numbers. Replace them, for "
            "example by the background's value."
        )
    return voxels


def window(voxels: np.ndarray, percentiles: Sequence[float], path: str) -> tuple[np.ndarray, float, float]:
    """Scale to 8 bit: the two percentiles of the whole volume become 0 and 255, values beyond are clipped.

    Rounds to the nearest grey value. Returns the uint8 array and the two intensities. Raises VolumeError for an image
    without contrast.
    """
    low, high = (float(value) for value in np.percentile(voxels, percentiles))
    if not high > low:
        raise VolumeError(
            f"{path}: the {percentiles[0]} and {percentiles[1]} percentiles of the intensities are both {low:g} "
            f"(range {voxels.min():g} to {voxels.max():g}): no contrast is left. Use another image or wider "
            "frames.intensity_percentiles."
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


def read_labels(path: str, image: nib.spatialimages.SpatialImage, image_path: str) -> np.ndarray:
    """Read a reference label map as integers on the image's stored grid.

    Raises VolumeError where the grid is another than the image's (shape, or a corner that lies off by more than a tenth
    of a voxel), and for values that are no whole numbers >= 0.
    """
    reference = load_image(path)
    _require_same_grid(reference, path, image, image_path)
    voxels = read_voxels(reference, path)
    labels = np.rint(voxels)
    off = np.abs(voxels - labels) > LABEL_TOLERANCE
    if off.any() or labels.min() < 0:
        found = voxels[off][0] if off.any() else voxels.min()
        raise VolumeError(f"{path}: holds the value {found:g}; expected label numbers, whole and not negative")
    if labels.max() > np.iinfo(np.uint16).max:
        raise VolumeError(f"{path}: holds the label {labels.max():.0f}; expected at most 65535")
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16)


def _require_same_grid(
    reference: nib.spatialimages.SpatialImage, path: str, image: nib.spatialimages.SpatialImage, image_path: str
) -> None:
    smallest = float(np.min(nib.affines.voxel_sizes(image.affine)))
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in image.shape])).reshape(3, -1).T
    apart = np.linalg.norm(
        nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(reference.affine, corners), axis=1
    ).max()
    if reference.shape == image.shape and apart <= GRID_TOLERANCE * smallest:
        return
    raise VolumeError(
        f"{path}: lies on another grid than {image_path}\n"
        f"  image:     {_describe(image)}\n  reference: {_describe(reference)}\n"
        f"  corners differ by up to {apart:.3g} mm; expected the same shape and at most "
        f"{GRID_TOLERANCE * smallest:.3g} mm. Resample the reference onto the image's grid (nearest neighbour)."
    )


def _describe(image: nib.spatialimages.SpatialImage) -> str:
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
            f"{path}: holds the labels {sorted(present)}, none of the configured {sorted(wanted)}; "
            "correct structures.*.labels or the reference"
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
) -> dict[str, Any]:
    """Write a volume's frames and reference into `folder`; return its row of the volume table.

    row: volume, image, reference, group; frames: axis, intensity_percentiles, coding; structures: name -> labels.
    Raises VolumeError.
    """
    image = load_image(row["image"])
    warnings = []
    if isinstance(image, nib.Nifti1Image) and not (image.header["qform_code"] or image.header["sform_code"]):
        warnings.append(
            f"{row['image']}: the header says nothing about orientation; the stored axes are taken as R, A, S"
        )
    grid = grid_of(image, frames["axis"], row["image"])
    grey, low, high = window(read_voxels(image, row["image"]), frames["intensity_percentiles"], row["image"])
    shown = grid.to_frames(grey)
    if frames["coding"] == "jpeg75":
        shown = jpeg75(shown)
    reference_sha256 = ""
    if row["reference"]:
        labels, found = keep_structures(
            read_labels(row["reference"], image, row["image"]), structures, row["reference"]
        )
        warnings += found
        reference_sha256 = sha256_of(row["reference"])
        save_nifti(grid.to_frames(labels), grid.frames_affine, folder / f"{row['volume']}_reference.nii.gz")
    save_nifti(shown, grid.frames_affine, folder / f"{row['volume']}_frames.nii")
    return {
        "status": "ok",
        "sha256": sha256_of(row["image"]),
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
    "group": "",
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
) -> None:
    """Convert a shard's volumes into `folder` and write its `volumes.parquet`.

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
            "group": row["group"] or row["volume"],
        }
        try:
            made = convert_volume(row, frames, structures, folder)
            for warning in made["warnings"]:
                logger.warning("%s", warning)
            what = f"{' x '.join(map(str, made['shape']))} frames"
        except VolumeError as error:
            made = {"status": "failed", "reason": str(error)}
            what = f"FAILED: {error}"
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
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)
