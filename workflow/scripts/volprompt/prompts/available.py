"""The candidate prompts of one volume, displaced where a scheme asks for noise."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from volprompt.settings.schemes import Noise
from volprompt.volumes.grid import Grid

# Origins of prompts that come from the reference.
NEGATIVE_PART = 1000  # in the draws, behind all positive points
OF_REFERENCE = ("centroid", "interior", "skeleton", "bounding_box")
# What a click that says where a structure is not is called in the prompt table.
NEGATIVE_CLICK = "negative_click"


@dataclass(frozen=True)
class FrameGrid:
    """Size (y, x) of a volume's frames in pixels, and spacing (y, x) in millimetres."""

    size: tuple[int, int]
    spacing: tuple[float, float]


def frame_grid(grid: Grid) -> FrameGrid:
    """Return size and spacing of the frames of a volume with this grid."""
    return FrameGrid(grid.frames_shape[1:], grid.spacing[1:])


class Candidates:
    """The candidate prompts of one volume, by structure and slice; displaced if the scheme has noise."""

    def __init__(
        self, table: pd.DataFrame, origins: Sequence[str], noise: Noise | None = None, frame: FrameGrid | None = None
    ) -> None:
        """Look up the prompts of a volume.

        table: the volume's rows of the prompt table.
        origins: of points, the first available one of which is used.
        noise: how far prompts are displaced, if at all.
        frame: size and spacing of the volume's frames, needed for noise.
        """
        # Positive points of each structure and slice, and negative clicks where the positive points are clicks.
        self.points: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self.negatives: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for origin in reversed(origins):
            found = _points_of(table, origin)
            self.points |= found
            negatives = _points_of(table, NEGATIVE_CLICK) if origin == "click" else {}
            self.negatives |= {key: negatives.get(key, []) for key in found}
        boxes = table[table["kind"] == "box"]
        self.boxes = {
            (row.structure, int(row.slice)): (float(row.x), float(row.y), float(row.x2), float(row.y2))
            for row in boxes.itertuples()
        }
        self.areas = {
            (row.structure, int(row.slice)): int(row.area) for row in table.itertuples() if not pd.isna(row.area)
        }
        if noise and len(table):
            if frame is None:
                raise ValueError("noise in millimetres needs the frame's size and spacing")
            volume = str(table["volume"].iloc[0])
            self.points, self.negatives = (
                {
                    key: [
                        displaced_point(point, noise, frame, volume, *key, part + number)
                        for number, point in enumerate(points)
                    ]
                    for key, points in kind.items()
                }
                for part, kind in ((0, self.points), (NEGATIVE_PART, self.negatives))
            )
            self.boxes = {key: displaced_box(box, noise, frame, volume, *key) for key, box in self.boxes.items()}
        self.shown = set(table.loc[table["origin"].isin(OF_REFERENCE), "structure"])

    def absent(self, name: str) -> bool:
        """Return whether there is a reference, and it shows nothing of a structure."""
        return bool(self.shown) and name not in self.shown


def _points_of(table: pd.DataFrame, origin: str) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return the points of one origin by structure and slice, in the order of the table."""
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in table[(table["kind"] == "point") & (table["origin"] == origin)].itertuples():
        points.setdefault((row.structure, int(row.slice)), []).append((float(row.x), float(row.y)))
    return points


def _draw_numbers(noise: Noise, volume: str, structure: str, index: int, part: int = 0) -> np.ndarray:
    """Draw six standard normal numbers: for x and y of a point, then for the four sides of a box.

    They depend only on seed, volume, structure, slice and the point's number among several, so they are the same for
    all models and schemes of one seed.
    """
    key = [noise.seed, zlib.crc32(volume.encode()), zlib.crc32(structure.encode()), index, *([part] if part else [])]
    return np.random.default_rng(key).standard_normal(6)


def displaced_point(
    point: tuple[float, float],
    noise: Noise,
    frame: FrameGrid,
    volume: str,
    structure: str,
    index: int,
    part: int = 0,
) -> tuple[float, float]:
    """Move a point (x, y) by a normal displacement in millimetres along both axes, and keep it in the frame.

    part: which point of the structure on this slice.
    """
    moved_x, moved_y = _draw_numbers(noise, volume, structure, index, part)[:2] * noise.points_mm
    x = np.clip(point[0] + moved_x / frame.spacing[1], 0, frame.size[1] - 1)
    y = np.clip(point[1] + moved_y / frame.spacing[0], 0, frame.size[0] - 1)
    return float(x), float(y)


def displaced_box(
    box: tuple[float, float, float, float], noise: Noise, frame: FrameGrid, volume: str, structure: str, index: int
) -> tuple[float, float, float, float]:
    """Move the four sides of a box (x, y, x2, y2) independently, and keep them in the frame.

    Sides that pass each other swap.
    """
    sides = _draw_numbers(noise, volume, structure, index)[2:] * noise.boxes_mm
    moved = np.array(box) + sides / np.tile(frame.spacing[::-1], 2)
    x, x2 = sorted(np.clip(moved[::2], 0, frame.size[1] - 1))
    y, y2 = sorted(np.clip(moved[1::2], 0, frame.size[0] - 1))
    return float(x), float(y), float(x2), float(y2)
