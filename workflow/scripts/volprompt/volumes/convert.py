"""Images and references become frames and label maps on one grid, shard by shard."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel import orientations

from volprompt.errors import comes_from_the_machine
from volprompt.files import atomic, write_table
from volprompt.identity import NO_SETTINGS, write_identity
from volprompt.logs import ADDED_UP, NOTICE, Progress, logger
from volprompt.volumes.converted import frames_path
from volprompt.volumes.grid import grid_of
from volprompt.volumes.images.image import VolumeError
from volprompt.volumes.images.opening import open_image, read_voxels
from volprompt.volumes.images.sources import as_listed, placed, readable_sha256, sha256_of_source, signature_of_source
from volprompt.volumes.references import keep_structures, read_labels
from volprompt.words import plural

# Snakemake's console looks for this line.
LEFT_OUT = "Labels of the references that belong to no structure in use and are left out: "
# Where every source lies at its path in the sample sheet.
NO_PLACES: Mapping[str, str] = {}


def limits_of(voxels: np.ndarray, frames: Mapping[str, Any], path: str) -> tuple[float, float]:
    """Return the intensities that become black and white: the window, or two percentiles of the whole volume.

    frames: the settings window (None for none) and intensity_percentiles; path: of the image, for messages. Raises
    VolumeError for an image of which nothing would be seen.
    """
    if frames.get("window"):
        low, high = (float(value) for value in frames["window"])
        if voxels.max() <= low or voxels.min() >= high:
            raise VolumeError(
                path,
                f"the intensities ({voxels.min():g} to {voxels.max():g}) lie outside of the window "
                f"({low:g} to {high:g}): no contrast is left",
                remedy="Correct frames.window, or leave it out for images that are no CT",
            )
        return low, high
    percentiles = frames["intensity_percentiles"]
    low, high = (float(value) for value in np.percentile(voxels, percentiles))
    if not high > low:
        raise VolumeError(
            path,
            f"the {percentiles[0]} and {percentiles[1]} percentiles of the intensities are both {low:g} "
            f"(range {voxels.min():g} to {voxels.max():g}): no contrast is left",
            remedy="Use another image or wider frames.intensity_percentiles",
        )
    return low, high


def to_grey(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale to uint8: `low` becomes 0 and `high` 255, values beyond are clipped, grey values rounded."""
    scaled = np.clip(voxels, low, high)
    scaled -= low
    scaled *= 255.0 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def jpeg75(frames: np.ndarray) -> np.ndarray:
    """Send each frame (uint8) through JPEG at quality 75, as the paper's code stored them."""
    from PIL import Image

    decoded = np.empty_like(frames)
    for index, frame in enumerate(frames):
        stream = io.BytesIO()
        Image.fromarray(frame).convert("RGB").save(stream, format="JPEG", quality=75)
        decoded[index] = np.asarray(Image.open(stream).convert("L"))
    return decoded


def convert_volume(
    row: Mapping[str, str],
    frames: Mapping[str, Any],
    labels: Mapping[str, Sequence[int]],
    folder: Path,
    resample: str | None = None,
    ignored: Sequence[int] = (),
) -> dict[str, Any]:
    """Write a volume's frames and reference into `folder`, and return its row of the volume table.

    Beside it, as `left_out`, the labels of the reference that belong to no structure.

    row: volume, image, reference, and series if the image's DICOM files hold several.
    frames: the settings axis, intensity_percentiles, window and coding.
    labels: label numbers by structure.
    folder: of the shard.
    resample: `nearest` for references on other grids, which are refused without it.
    ignored: label numbers of voxels that no score will count.

    Raises VolumeError.
    """
    with open_image(row["image"], row.get("series", "")) as image:
        warnings = list(image.warnings)
        grid = grid_of(image, frames["axis"])
        voxels = read_voxels(image)
    low, high = limits_of(voxels, frames, row["image"])
    if frames.get("window") and voxels.min() >= low:
        warnings.append(
            f"{row['image']}: no intensity lies below the window ({low:g}); the lowest is {voxels.min():g}: "
            "is this a CT in Hounsfield units?"
        )
    grey_frames = grid.to_frames(to_grey(voxels, low, high))
    if frames["coding"] == "jpeg75":
        grey_frames = jpeg75(grey_frames)
    reference_sha256 = ""
    others: list[int] = []
    if row["reference"]:
        with open_image(row["reference"], labels=True) as reference:
            label_map, grid_warnings = read_labels(reference, image, resample)
        label_map, label_warnings, others = keep_structures(label_map, labels, row["reference"], ignored)
        warnings += grid_warnings + label_warnings
        reference_sha256 = sha256_of_source(row["reference"])
        save_nifti(grid.to_frames(label_map), grid.frames_affine, folder / f"{row['volume']}_reference.nii.gz")
    save_nifti(grey_frames, grid.frames_affine, frames_path(folder, row["volume"]))
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
        "left_out": others,
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
    labels: Mapping[str, Sequence[int]],
    folder: str | Path,
    resample: str | None = None,
    ignored: Sequence[int] = (),
    identity: Mapping[str, Any] = NO_SETTINGS,
    places: Mapping[str, str] = NO_PLACES,
) -> None:
    """Convert a shard's volumes into `folder`, and write its `volumes.parquet` and its identity.

    identity: the settings that reach the shard, see `identity.Identity`; places: see `sources.placed`; the other
    arguments as in `convert_volume`. A volume that fails keeps its row, with status `failed` and the reason; the others
    are converted.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(len(rows))
    table = []
    left_out: Counter[int] = Counter()
    made_from, signatures = {}, {}
    for listed in rows:
        row = placed(listed, places)
        sources = {role: row[role] for role in ("image", "reference") if row[role]}
        for role, source in sources.items():  # before they are read: a later write is then noticed
            signatures[f"{row['volume']} {role}"] = signature_of_source(source)
        known = {
            "volume": row["volume"],
            "source": listed["image"],
            "reference": listed["reference"],
        }
        changed = False
        try:
            made = convert_volume(row, frames, labels, folder, resample, ignored)
            changed = any(
                signature_of_source(source) != signatures[f"{row['volume']} {role}"] for role, source in sources.items()
            )
            if changed:
                raise VolumeError(row["image"], "image or reference was written to while it was read", "", "Run again")
            made["warnings"] = [as_listed(warning, listed, places) for warning in made["warnings"]]
            for warning in made["warnings"]:
                logger.info("warning: %s", warning)  # not on the console: often every volume has the same ones
            what = f"{' x '.join(map(str, made['shape']))} frames"
            left_out.update(made.pop("left_out"))
        except Exception as error:
            if isinstance(error, OSError) or comes_from_the_machine(error):  # a full disk, say
                raise
            what, reason = "FAILED", str(error)
            if isinstance(error, VolumeError):
                logger.error("FAILED: volume %s: %s", row["volume"], error)
            else:
                logger.error("FAILED: volume %s", row["volume"], exc_info=error)
                reason = f"{row['image']}: {type(error).__name__}: {error}"
            made = {"status": "failed", "reason": as_listed(reason, listed, places)}
        digests = {"image": made.get("sha256"), "reference": made.get("reference_sha256")}
        for role, source in sources.items():
            # Without a digest the next plan takes the source for another one.
            made_from[f"{row['volume']} {role}"] = "" if changed else digests[role] or readable_sha256(source)
        table.append({**VOLUME_COLUMNS, **known, **made})
        progress.step(row["volume"], what)
    if left_out:  # last, where Snakemake's console looks for it, and adds it up over all shards
        counts = [f"{label} ({plural(count, 'volume')})" for label, count in sorted(left_out.items())]
        logger.log(NOTICE, "%s%s", LEFT_OUT, ", ".join(counts), extra=ADDED_UP)
    write_table(pd.DataFrame(table), folder / "volumes.parquet")
    write_identity(folder, identity, made_from, signatures=signatures)


def save_nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write an array with its affine (millimetres), atomically."""
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    image.header.set_xyzt_units("mm")
    with atomic(path) as temporary:
        nib.save(image, temporary)
