"""Models that take a whole volume with prompts in it, and what their prompts are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from volprompt.models.model import Model
from volprompt.prompts.schemes import ObjectPrompt


@dataclass(frozen=True)
class VolumePrompts:
    """The prompts of one object in a volume; places are (slice, y, x) in voxels, whose centres are at integers.

    points: float32 (n, 3); labels: int32 (n,), 1 for a positive point and 0 for a negative one; boxes: float32
    (n, 2, 3), opposite corners, both inclusive, of boxes that are drawn on one slice each; masks: of slices whose mask
    is given, bool (y, x) by slice.
    """

    points: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, prompts: Iterable[ObjectPrompt]) -> VolumePrompts:
        """The prompts of an object on some slices, in their order."""
        points: list[tuple[float, float, float]] = []
        labels: list[int] = []
        boxes: list[list[tuple[float, float, float]]] = []
        masks: dict[int, np.ndarray] = {}
        for prompt in prompts:
            points += [(prompt.slice, float(y), float(x)) for x, y in prompt.points]
            labels += [int(label) for label in prompt.labels]
            if prompt.box is not None:
                x, y, x2, y2 = map(float, prompt.box)
                boxes.append([(prompt.slice, y, x), (prompt.slice, y2, x2)])
            if prompt.mask is not None:
                masks[prompt.slice] = prompt.mask
        return cls(
            np.array(points, np.float32).reshape(-1, 3),
            np.array(labels, np.int32),
            np.array(boxes, np.float32).reshape(-1, 2, 3),
            masks,
        )


def fault_of_mask(mask: object, shape: tuple[int, int, int]) -> str:
    """What is wrong with what an adapter returned as a mask of a volume; empty for bool (slice, y, x) of `shape`."""
    if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == shape:
        return ""
    found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
    return f"{found}; expected bool {shape}"


class VolumeModel(Model):
    """A model that takes a whole volume at once, with prompts in it, and returns the mask of one object."""

    @abstractmethod
    def segment(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        prompts: VolumePrompts,
        before: np.ndarray | None,
    ) -> np.ndarray:
        """Segment one object.

        image: uint8 (slice, y, x), grey values in the window of the study; spacing: millimetres between voxels along
        slice, y and x; prompts: all that the object has so far, correction clicks last; before: the mask of the round
        before, bool (slice, y, x), where a click corrects it; None in round 0. Returns bool (slice, y, x).
        """
