"""A scheme's definition and a volume's prompt table become what a predictor is given, per object and slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from volprompt.config import Scheme, SliceAt
from volprompt.errors import VolpromptError


class MissingPrompt(VolpromptError):
    """A volume lacks a prompt that a scheme needs."""


@dataclass(frozen=True)
class ObjectPrompt:
    """What a predictor is given for one object on one slice.

    points: float32 (n, 2), (x, y) in pixels of the frame; labels: int32 (n,), 1 positive, 0 negative;
    box: float32 (4,), x, y, x2, y2, or None.
    """

    structure: str
    slice: int
    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None


def middle_slice(depth: int) -> int:
    """The middle slice as the paper counts: index 80 of 160."""
    return depth // 2


class Candidates:
    """One volume's candidate prompts, looked up by structure and slice."""

    def __init__(self, table: pd.DataFrame, origins: Sequence[str]) -> None:
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


def scheme_prompts(
    scheme: Scheme, table: pd.DataFrame, structures: Sequence[str], scored: Sequence[str], depth: int
) -> list[ObjectPrompt]:
    """The prompts that `scheme` gives for one volume: per object every slice (image) or one slice (video).

    table: the volume's rows of the prompt table; structures: all configured ones in order; scored: the objects unless
    the scheme names its own; depth: number of slices. Raises MissingPrompt, for an image scheme only where no slice at
    all has a prompt.
    """
    objects = list(scheme.structures or scored)
    candidates = Candidates(table, scheme.origins)
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
    index_of = _prompted_slices(scheme, candidates, objects, structures, depth)
    found = [_on_slice(scheme, candidates, name, index_of[name], structures) for name in objects]
    return [prompt for prompt in found if prompt is not None]


def wanted_clicks(
    scheme: Scheme, structures: Sequence[str], scored: Sequence[str], depth: int
) -> tuple[list[str], int | None]:
    """The structures that a scheme takes clicks on, in order, and the slice on which; None where any slice will do.

    structures, scored, depth: as for `scheme_prompts`. No structure for a scheme that takes no clicks.
    """
    if "click" not in scheme.origins:
        return [], None
    pointed = set(structures) if scheme.negatives == "others" else set(scheme.structures or scored)
    free = scheme.predictor == "image" or scheme.slice in ("nearest", "largest")
    index = None if free else _fixed_slice(scheme.slice or "middle", depth)
    return [name for name in structures if name in pointed], index


def _on_slice(
    scheme: Scheme, candidates: Candidates, name: str, index: int, structures: Sequence[str]
) -> ObjectPrompt | None:
    """The prompt of one object on one slice, or None where its own point or box is missing."""
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box = None
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
) -> dict[str, int]:
    """The slice on which each object of a video scheme is prompted. Raises MissingPrompt."""
    needed = list(structures) if scheme.negatives == "others" else list(objects)
    lacking = {index: _lacking(scheme, candidates, objects, needed, index) for index in range(depth)}
    complete = [index for index in range(depth) if not lacking[index]]
    wanted = scheme.slice or "middle"
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


def _fixed_slice(wanted: object, depth: int) -> int:
    if isinstance(wanted, SliceAt):
        return wanted.index if wanted.index is not None else int((wanted.fraction or 0.0) * (depth - 1) + 0.5)
    return middle_slice(depth)


def _lacking(
    scheme: Scheme, candidates: Candidates, objects: Sequence[str], needed: Sequence[str], index: int
) -> list[str]:
    """The structures whose prompt is missing on a slice: points of all that are needed, boxes of the objects."""
    lacking = [name for name in needed if scheme.origins and (name, index) not in candidates.points]
    lacking += [name for name in objects if scheme.box and (name, index) not in candidates.boxes]
    return list(dict.fromkeys(lacking))


def _kind(scheme: Scheme) -> str:
    kinds = [f"point ({' or '.join(scheme.origins)})"] if scheme.origins else []
    kinds += ["box"] if scheme.box else []
    return " or ".join(kinds)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
