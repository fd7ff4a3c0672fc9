"""A scheme's definition and a volume's prompt table become what a predictor is given, per object and slice."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from volprompt.errors import VolpromptError
from volprompt.settings.config import Noise, Scheme, SliceAt, SliceChoice
from volprompt.volumes.grid import Grid
from volprompt.volumes.references import structure_mask


class MissingPrompt(VolpromptError):
    """A volume lacks a prompt that a scheme needs."""


@dataclass(frozen=True)
class ObjectPrompt:
    """What a predictor is given for one object on one slice.

    points: float32 (n, 2), (x, y) in pixels of the frame; labels: int32 (n,), 1 positive, 0 negative;
    box: float32 (4,), x, y, x2, y2, or None; mask: bool (y, x), or None. A mask is the only prompt on its slice.
    """

    structure: str
    slice: int
    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class FrameGrid:
    """Size (y, x) of a volume's frames in pixels, and spacing (y, x) in millimetres."""

    size: tuple[int, int]
    spacing: tuple[float, float]


def frame_grid(grid: Grid) -> FrameGrid:
    """That of a volume's frames."""
    return FrameGrid(grid.frames_shape[1:], grid.spacing[1:])


def middle_slice(depth: int) -> int:
    """The middle slice as the paper counts: index 80 of 160."""
    return depth // 2


class Candidates:
    """One volume's candidate prompts, looked up by structure and slice; displaced where a scheme wants noise.

    frame: of the volume, needed for noise.
    """

    def __init__(
        self, table: pd.DataFrame, origins: Sequence[str], noise: Noise | None = None, frame: FrameGrid | None = None
    ) -> None:
        self.points: dict[tuple[str, int], tuple[float, float]] = {}
        points = table[table["kind"] == "point"]
        for origin in reversed(origins):
            for row in points[points["origin"] == origin].itertuples():
                self.points[row.structure, int(row.slice)] = float(row.x), float(row.y)
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
            self.points = {
                key: displaced_point(point, noise, frame, volume, *key) for key, point in self.points.items()
            }
            self.boxes = {key: displaced_box(box, noise, frame, volume, *key) for key, box in self.boxes.items()}


def _draws(noise: Noise, volume: str, structure: str, index: int) -> np.ndarray:
    """Six standard normal numbers: x and y of a point, then the four sides of a box.

    They depend on seed, volume, structure and slice alone, so all models, and schemes of one seed, get the same.
    """
    key = [noise.seed, zlib.crc32(volume.encode()), zlib.crc32(structure.encode()), index]
    return np.random.default_rng(key).standard_normal(6)


def displaced_point(
    point: tuple[float, float], noise: Noise, frame: FrameGrid, volume: str, structure: str, index: int
) -> tuple[float, float]:
    """A point (x, y) moved by a normal displacement along each axis, in millimetres, and kept in the frame."""
    moved_x, moved_y = _draws(noise, volume, structure, index)[:2] * noise.points_mm
    x = np.clip(point[0] + moved_x / frame.spacing[1], 0, frame.size[1] - 1)
    y = np.clip(point[1] + moved_y / frame.spacing[0], 0, frame.size[0] - 1)
    return float(x), float(y)


def displaced_box(
    box: tuple[float, float, float, float], noise: Noise, frame: FrameGrid, volume: str, structure: str, index: int
) -> tuple[float, float, float, float]:
    """A box (x, y, x2, y2) with each side moved by itself and kept in the frame; sides that pass each other swap."""
    sides = _draws(noise, volume, structure, index)[2:] * noise.boxes_mm
    moved = np.array(box) + sides / np.tile(frame.spacing[::-1], 2)
    x, x2 = sorted(np.clip(moved[::2], 0, frame.size[1] - 1))
    y, y2 = sorted(np.clip(moved[1::2], 0, frame.size[0] - 1))
    return float(x), float(y), float(x2), float(y2)


def scheme_prompts(
    scheme: Scheme,
    table: pd.DataFrame,
    structures: Sequence[str],
    scored: Sequence[str],
    depth: int,
    frame: FrameGrid | None = None,
) -> list[ObjectPrompt]:
    """The prompts that `scheme` gives for one volume: per object every slice (image), or one or some slices (video).

    table: the volume's rows of the prompt table; structures: all configured ones in order; scored: the objects unless
    the scheme names its own; depth: number of slices; frame: needed by a scheme with noise. The prompts of a scheme
    with `mask` say where a mask is the prompt; `with_masks` gives it. Raises MissingPrompt, for an image scheme only
    where no slice at all has a prompt.
    """
    objects = list(scheme.structures or scored)
    candidates = Candidates(table, scheme.origins, scheme.noise, frame)
    if scheme.presence and not candidates.boxes:
        raise MissingPrompt("there is no reference to tell on which slices a structure is (presence: true)")
    if scheme.predictor == "image":
        prompts = [
            prompt
            for index in range(depth)
            for name in objects
            if (prompt := _on_slice(scheme, candidates, name, index, structures)) is not None
        ]
        if not prompts:
            raise MissingPrompt(f"no slice has a {_kind(scheme)} for {_listed(objects)}; check the reference's labels")
        return prompts
    slices = _prompted_slices(scheme, candidates, objects, structures, depth)
    found = [_on_slice(scheme, candidates, name, index, structures) for name in objects for index in slices[name]]
    return [prompt for prompt in found if prompt is not None]


def wanted_clicks(
    scheme: Scheme, structures: Sequence[str], scored: Sequence[str], depth: int
) -> tuple[list[str], int | None]:
    """The structures that a scheme takes clicks on, in order, and the slice on which; None where it can be any.

    structures, scored, depth: as for `scheme_prompts`. No structure for a scheme that takes no clicks.
    """
    if "click" not in scheme.origins:
        return [], None
    pointed = set(structures) if scheme.negatives == "others" else set(scheme.structures or scored)
    first, *more = scheme.slices
    free = scheme.predictor == "image" or bool(more) or first in ("nearest", "largest")
    index = None if free else _fixed_slice(first, depth)
    return [name for name in structures if name in pointed], index


def with_masks(
    prompts: Sequence[ObjectPrompt], reference: np.ndarray, structures: Mapping[str, Sequence[int]]
) -> list[ObjectPrompt]:
    """Prompts of a scheme with `mask`, each with the reference mask of its slice.

    reference: label map (slice, y, x); structures: label numbers by name.
    """
    return [
        replace(prompt, mask=structure_mask(reference[prompt.slice], structures[prompt.structure]))
        for prompt in prompts
    ]


def present_slices(table: pd.DataFrame, structure: str, depth: int) -> np.ndarray:
    """The slices on which the reference shows a structure: bool (slice,). table: as for `scheme_prompts`."""
    present = np.zeros(depth, bool)
    present[table.loc[(table["kind"] == "box") & (table["structure"] == structure), "slice"]] = True
    return present


def _on_slice(
    scheme: Scheme, candidates: Candidates, name: str, index: int, structures: Sequence[str]
) -> ObjectPrompt | None:
    """The prompt of one object on one slice, or None where its own point, box or mask is missing."""
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box = None
    if scheme.mask and (name, index) not in candidates.boxes:
        return None
    if scheme.origins:
        own = candidates.points.get((name, index))
        if own is None:
            return None
        points, labels = [own], [1]
    if scheme.box:
        corners = candidates.boxes.get((name, index))
        if corners is None:
            return None
        box = np.array(corners, dtype=np.float32)
    if scheme.negatives == "others":
        for other in structures:
            point = candidates.points.get((other, index))
            if other != name and point is not None:
                points.append(point)
                labels.append(0)
    return ObjectPrompt(
        name, index, np.array(points, dtype=np.float32).reshape(-1, 2), np.array(labels, dtype=np.int32), box
    )


def _prompted_slices(
    scheme: Scheme, candidates: Candidates, objects: Sequence[str], structures: Sequence[str], depth: int
) -> dict[str, list[int]]:
    """The slices on which each object of a video scheme is prompted, the first one first. Raises MissingPrompt."""
    chosen = [_chosen_slice(wanted, scheme, candidates, objects, structures, depth) for wanted in scheme.slices]
    return {name: sorted({choice[name] for choice in chosen}) for name in objects}


def _chosen_slice(
    wanted: SliceChoice,
    scheme: Scheme,
    candidates: Candidates,
    objects: Sequence[str],
    structures: Sequence[str],
    depth: int,
) -> dict[str, int]:
    """The slice of each object that one choice stands for. Raises MissingPrompt."""
    needed = list(structures) if scheme.negatives == "others" else list(objects)
    lacking = {index: _lacking(scheme, candidates, objects, needed, index) for index in range(depth)}
    complete = [index for index in range(depth) if not lacking[index]]
    if wanted in ("nearest", "largest"):
        if not complete:
            raise MissingPrompt(
                f"there is no slice on which {_listed(needed)} all have a {_kind(scheme)}; add clicks on one slice"
            )
        if wanted == "nearest":
            nearest = min(complete, key=lambda index: (abs(index - middle_slice(depth)), index))
            return dict.fromkeys(objects, nearest)
        return {name: _largest(candidates, name, complete) for name in objects}
    index = _fixed_slice(wanted, depth)
    if not 0 <= index < depth:
        raise MissingPrompt(f"the scheme prompts slice {index}; the volume has {depth} slices (0 to {depth - 1})")
    if lacking[index]:
        raise MissingPrompt(
            f"slice {index} has no {_kind(scheme)} for {_listed(lacking[index])}; add clicks there, or prompt another "
            "slice (slice: nearest)"
        )
    return dict.fromkeys(objects, index)


def _largest(candidates: Candidates, name: str, slices: Sequence[int]) -> int:
    """Of some slices the one with the object's largest area, the first of equals."""
    return max(slices, key=lambda index: (candidates.areas.get((name, index), 0), -index))


def _fixed_slice(wanted: SliceChoice, depth: int) -> int:
    if isinstance(wanted, SliceAt):
        return wanted.index if wanted.index is not None else int((wanted.fraction or 0.0) * (depth - 1) + 0.5)
    return middle_slice(depth)


def _lacking(
    scheme: Scheme, candidates: Candidates, objects: Sequence[str], needed: Sequence[str], index: int
) -> list[str]:
    """The structures whose prompt is missing on a slice: points of all that are needed, boxes and masks of the
    objects (both are there wherever the reference shows a structure)."""
    lacking = [name for name in needed if scheme.origins and (name, index) not in candidates.points]
    lacking += [name for name in objects if (scheme.box or scheme.mask) and (name, index) not in candidates.boxes]
    return list(dict.fromkeys(lacking))


def _kind(scheme: Scheme) -> str:
    kinds = [f"point ({' or '.join(scheme.origins)})"] if scheme.origins else []
    kinds += ["box"] if scheme.box else []
    kinds += ["mask"] if scheme.mask else []
    return " or ".join(kinds)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
