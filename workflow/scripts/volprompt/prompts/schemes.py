"""A scheme and a volume's prompt table become the prompts of a predictor, per object and slice."""

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
    """The prompt of one object on one slice.

    structure: name of the object.
    slice: index of the slice.
    points: float32 (n, 2), (x, y) in pixels of the frame.
    labels: int32 (n,), 1 for a positive point and 0 for a negative one.
    box: float32 (4,), x, y, x2, y2 in pixels of the frame, or None.
    mask: bool (y, x), or None. A mask is the only prompt on its slice.
    """

    structure: str
    slice: int
    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Number of points, and whether there is a box and a mask. Prompts of one form can share a batch."""
        return len(self.points), self.box is not None, self.mask is not None

    @property
    def count(self) -> int:
        """Number of points, boxes and masks."""
        return sum(self.form)


@dataclass(frozen=True)
class FrameGrid:
    """Size (y, x) of a volume's frames in pixels, and spacing (y, x) in millimetres."""

    size: tuple[int, int]
    spacing: tuple[float, float]


def frame_grid(grid: Grid) -> FrameGrid:
    """Return size and spacing of the frames of a volume with this grid."""
    return FrameGrid(grid.frames_shape[1:], grid.spacing[1:])


def middle_slice(depth: int) -> int:
    """Return the index of the middle slice as the paper counts: 80 of 160."""
    return depth // 2


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


def _draw_numbers(noise: Noise, volume: str, structure: str, index: int) -> np.ndarray:
    """Draw six standard normal numbers: for x and y of a point, then for the four sides of a box.

    They depend only on seed, volume, structure and slice, so they are the same for all models and schemes of one seed.
    """
    key = [noise.seed, zlib.crc32(volume.encode()), zlib.crc32(structure.encode()), index]
    return np.random.default_rng(key).standard_normal(6)


def displaced_point(
    point: tuple[float, float], noise: Noise, frame: FrameGrid, volume: str, structure: str, index: int
) -> tuple[float, float]:
    """Move a point (x, y) by a normal displacement in millimetres along both axes, and keep it in the frame."""
    moved_x, moved_y = _draw_numbers(noise, volume, structure, index)[:2] * noise.points_mm
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


def scheme_prompts(
    scheme: Scheme,
    table: pd.DataFrame,
    configured: Sequence[str],
    scored: Sequence[str],
    depth: int,
    frame: FrameGrid | None = None,
) -> list[ObjectPrompt]:
    """Return a scheme's prompts for one volume: per object on every slice (image), or on one or some slices (video).

    scheme: the scheme.
    table: the volume's rows of the prompt table.
    configured: names of all structures, in the configuration's order.
    scored: names of the scored structures, which are the objects unless the scheme names others.
    depth: number of slices.
    frame: size and spacing of the frames, needed by a scheme with noise.

    A prompt of a scheme with `mask` has no mask yet; `with_masks` adds it. Raises MissingPrompt; for an image scheme
    only if no slice at all has a prompt.
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
            if (prompt := _prompt_on_slice(scheme, candidates, name, index, configured)) is not None
        ]
        if not prompts:
            raise MissingPrompt(f"no slice has a {_kinds(scheme)} for {_quoted(objects)}; check the reference's labels")
        return prompts
    slices = _prompted_slices(scheme, candidates, objects, configured, depth)
    pairs = [(name, index) for name in objects for index in slices[name]]
    on_slices = (_prompt_on_slice(scheme, candidates, name, index, configured) for name, index in pairs)
    return [prompt for prompt in on_slices if prompt is not None]


def clicks_needed(
    scheme: Scheme, configured: Sequence[str], scored: Sequence[str], depth: int
) -> tuple[list[str], int | None]:
    """Return the structures that a scheme takes clicks on, in order, and the slice; None if it can be any slice.

    The other arguments are those of `scheme_prompts`. A scheme that takes no clicks gives no structure.
    """
    if "click" not in scheme.origins:
        return [], None
    pointed = set(configured) if scheme.negatives == "others" else set(scheme.structures or scored)
    first, *more = scheme.slices
    free = scheme.predictor == "image" or bool(more) or first in ("nearest", "largest")
    index = None if free else _fixed_slice(first, depth)
    return [name for name in configured if name in pointed], index


def with_masks(
    prompts: Sequence[ObjectPrompt], reference: np.ndarray, labels: Mapping[str, Sequence[int]]
) -> list[ObjectPrompt]:
    """Add the reference mask of its slice to every prompt of a scheme with `mask`.

    reference: label map (slice, y, x); labels: label numbers by structure.
    """
    return [
        replace(prompt, mask=structure_mask(reference[prompt.slice], labels[prompt.structure])) for prompt in prompts
    ]


def present_slices(table: pd.DataFrame, structure: str, depth: int) -> np.ndarray:
    """Return on which slices the reference shows a structure: bool (slice,). table: as in `scheme_prompts`."""
    present = np.zeros(depth, bool)
    present[table.loc[(table["kind"] == "box") & (table["structure"] == structure), "slice"]] = True
    return present


def _prompt_on_slice(
    scheme: Scheme, candidates: Candidates, name: str, index: int, configured: Sequence[str]
) -> ObjectPrompt | None:
    """Return the prompt of the object `name` on slice `index`, or None if its point, box or mask is missing."""
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box = None
    if scheme.shapes and (name, index) not in candidates.boxes:
        return None
    if scheme.origins:
        positive = candidates.points.get((name, index))
        if positive is None:
            return None
        points, labels = [positive], [1]
    if scheme.box:
        box = np.array(candidates.boxes[name, index], dtype=np.float32)
    if scheme.negatives == "others":
        for other in configured:
            point = candidates.points.get((other, index))
            if other != name and point is not None:
                points.append(point)
                labels.append(0)
    return ObjectPrompt(
        name, index, np.array(points, dtype=np.float32).reshape(-1, 2), np.array(labels, dtype=np.int32), box
    )


def _prompted_slices(
    scheme: Scheme, candidates: Candidates, objects: Sequence[str], configured: Sequence[str], depth: int
) -> dict[str, list[int]]:
    """Return the slices, sorted, on which every object of a video scheme is prompted. Raises MissingPrompt."""
    chosen = [_choose_slice(choice, scheme, candidates, objects, configured, depth) for choice in scheme.slices]
    return {name: sorted({slices[name] for slices in chosen}) for name in objects}


def _choose_slice(
    choice: SliceChoice,
    scheme: Scheme,
    candidates: Candidates,
    objects: Sequence[str],
    configured: Sequence[str],
    depth: int,
) -> dict[str, int]:
    """Return the slice of every object that one value of the scheme's `slice` means. Raises MissingPrompt."""
    needed = list(configured) if scheme.negatives == "others" else list(objects)
    lacking = {index: _structures_without_prompt(scheme, candidates, objects, needed, index) for index in range(depth)}
    complete = [index for index in range(depth) if not lacking[index]]
    if choice in ("nearest", "largest"):
        if not complete:
            raise MissingPrompt(
                f"there is no slice on which {_quoted(needed)} all have a {_kinds(scheme)}; add clicks on one slice"
            )
        if choice == "nearest":
            nearest = min(complete, key=lambda index: (abs(index - middle_slice(depth)), index))
            return dict.fromkeys(objects, nearest)
        return {name: _largest_slice(candidates, name, complete) for name in objects}
    index = _fixed_slice(choice, depth)
    if not 0 <= index < depth:
        raise MissingPrompt(f"the scheme prompts slice {index}; the volume has {depth} slices (0 to {depth - 1})")
    if lacking[index]:
        raise MissingPrompt(
            f"slice {index} has no {_kinds(scheme)} for {_quoted(lacking[index])}; add clicks there, or prompt another "
            "slice (slice: nearest)"
        )
    return dict.fromkeys(objects, index)


def _largest_slice(candidates: Candidates, name: str, slices: Sequence[int]) -> int:
    """Return the slice with the object's largest area; the first one if there are several."""
    return max(slices, key=lambda index: (candidates.areas.get((name, index), 0), -index))


def _fixed_slice(choice: SliceChoice, depth: int) -> int:
    """Return the slice of a choice that does not depend on the prompts: an index, a fraction or the middle."""
    if isinstance(choice, SliceAt):
        return choice.index if choice.index is not None else int((choice.fraction or 0.0) * (depth - 1) + 0.5)
    return middle_slice(depth)


def _structures_without_prompt(
    scheme: Scheme, candidates: Candidates, objects: Sequence[str], needed: Sequence[str], index: int
) -> list[str]:
    """Return the structures whose prompt is missing on slice `index`.

    Points are needed of all in `needed`; boxes and masks only of the objects.
    """
    lacking = [name for name in needed if scheme.origins and (name, index) not in candidates.points]
    lacking += [name for name in objects if scheme.shapes and (name, index) not in candidates.boxes]
    return list(dict.fromkeys(lacking))


def _kinds(scheme: Scheme) -> str:
    points = [f"point ({' or '.join(scheme.origins)})"] if scheme.origins else []
    return " or ".join([*points, *scheme.shapes])


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
