"""Reading what the conversion wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from volprompt.files import read_start, read_table
from volprompt.volumes.grid import Grid


def read_volume_table(folder: str | Path) -> pd.DataFrame:
    """Read the volume table of a converted shard: one row per volume, failed ones included."""
    return read_table(Path(folder) / "volumes.parquet")


def grid_of_row(row: Any) -> Grid:
    """Return the grid of a converted volume. row: its row of the volume table."""
    shape = tuple(int(size) for size in row.source_shape)
    return Grid(
        (shape[0], shape[1], shape[2]), np.reshape(row.source_affine, (4, 4)), row.frame_axes, row.source_header
    )


def same_images(volumes: pd.DataFrame, groups: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return volumes whose image another one has too, byte for byte, with a remark; not those of one subject.

    volumes: volume tables of all shards; groups: subject of each volume, where the sample sheet gives one. Such volumes
    count as several subjects, which makes intervals too narrow and p-values too small.
    """
    first: dict[str, str] = {}
    found = []
    known = volumes[volumes["status"] == "ok"].reindex(columns=["volume", "sha256"]).dropna().sort_values("volume")
    for row in known[known["sha256"] != ""].itertuples():
        other = first.setdefault(row.sha256, row.volume)
        if groups.get(row.volume, row.volume) != groups.get(other, other):
            remark = (
                f"has the same image as {other}, and counts as another subject unless the column `group` says otherwise"
            )
            found.append((str(row.volume), remark))
    return found


def frames_path(folder: str | Path, volume: str) -> Path:
    """Return where the frames of a volume lie."""
    return Path(folder) / f"{volume}_frames.nii"


def read_frames(folder: str | Path, volume: str) -> np.ndarray:
    """Read the frames of a volume: uint8 (slice, y, x)."""
    return _read_array(frames_path(folder, volume))


def read_reference(folder: str | Path, volume: str) -> np.ndarray | None:
    """Read the reference label map of a volume on the grid of its frames; None if it has none."""
    path = Path(folder) / f"{volume}_reference.nii.gz"
    return _read_array(path) if path.exists() else None


def _read_array(path: Path) -> np.ndarray:
    read_start(path)
    image: Any = nib.load(path, mmap=False)  # read in the thread that asks, and not when the voxels are used
    return np.asarray(image.dataobj)
