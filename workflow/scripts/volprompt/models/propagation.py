"""Boxes of masks carry prompts through volumes, slice by slice, with no memory: for models that have none.

Each prompted slice is decoded with the scheme's own prompt. From there, forwards and in reverse, every next slice is
decoded with the tight bounding box of the mask before it, widened and clipped to the frame, by the same image
predictor. Where a mask is empty, the object ends in that direction. Of several prompted slices each carries the object
through the slices that it is the nearest to, of two equally near ones the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from volprompt.models.base import PromptableModel, batches_of_one_form, pack_bits
from volprompt.models.features import SliceFeatures, gather
from volprompt.models.tracked import TrackedObject, ways_apart
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice


@dataclass(eq=False, kw_only=True)
class PropagatedObject(TrackedObject):
    """An object that boxes carry.

    multimask: which mask is taken, on the prompted slices and on all others.
    widening: pixels along x and y by which a box grows to each side.
    decoded: slices that were decoded so far.
    """

    multimask: MaskChoice = False
    widening: tuple[float, float]
    decoded: int = 0


@dataclass(eq=False)
class _Way:
    """An object on its way in one direction. left: the slices before it, the next one first."""

    carried: PropagatedObject
    left: list[int]
    box: np.ndarray

    def prompt(self) -> ObjectPrompt:
        """The box on the next slice."""
        nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
        return ObjectPrompt(self.carried.prompts[0].structure, self.left.pop(0), *nothing, self.box)


class BoxPropagation:
    """Carries objects through their volumes by the boxes of their masks, with the image predictor of any model."""

    def __init__(self, model: PromptableModel) -> None:
        self.model = model

    def propagate(
        self, objects: Sequence[PropagatedObject], both_ways_at_once: bool
    ) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Fill the objects' masks on every slice that they reach.

        Yields like `Tracker.track`, in the order of `order_of_need`; uses of slices that an object does not reach are
        taken back.
        """
        given = [(each, prompt) for each in objects for prompt in each.prompts]
        yield [(each.features, prompt.slice) for each, prompt in given]
        forwards: list[_Way] = []
        reverse: list[_Way] = []
        for (each, prompt), box in zip(given, self._decode(given), strict=True):
            ways = ways_apart(each.prompted, each.features.depth)[prompt.slice]
            for passes, slices in zip((forwards, reverse), ways, strict=True):
                passes += _going_on([(each, list(slices), box)])
        for moving in [[*forwards, *reverse]] if both_ways_at_once else [forwards, reverse]:
            while moving:
                yield [(way.carried.features, way.left[0]) for way in moving]
                decoded = self._decode([(way.carried, way.prompt()) for way in moving])
                moving = _going_on([(way.carried, way.left, box) for way, box in zip(moving, decoded, strict=True)])

    def _decode(self, given: Sequence[tuple[PropagatedObject, ObjectPrompt]]) -> list[np.ndarray | None]:
        """Decode prompts, keep masks and confidence, and return each mask's box for the next slice; None if empty."""
        boxes: dict[int, np.ndarray | None] = {}
        for alike in dict.fromkeys((each.size, each.multimask) for each, _ in given):
            places = [n for n, (each, _) in enumerate(given) if (each.size, each.multimask) == alike]
            for batch in batches_of_one_form(places, lambda place: given[place][1], self.model.largest_batch):
                boxes |= zip(batch, self._decode_batch([given[place] for place in batch], *alike), strict=True)
        return [boxes[place] for place in range(len(given))]

    def _decode_batch(
        self, batch: Sequence[tuple[PropagatedObject, ObjectPrompt]], size: tuple[int, int], multimask: MaskChoice
    ) -> list[np.ndarray | None]:
        levels = gather([(each.features, prompt.slice) for each, prompt in batch])
        decoded = self.model.decode(levels, [prompt for _, prompt in batch], size, multimask)
        for number, ((each, prompt), bits) in enumerate(zip(batch, pack_bits(decoded.masks), strict=True)):
            each.masks[prompt.slice] = bits
            each.confidence[:, prompt.slice] = decoded.confidence[:, number]
            each.decoded += 1
        tight = tight_boxes(decoded.masks)
        return [
            None if box is None else widened(box, each.widening, size)
            for (each, _), box in zip(batch, tight, strict=True)
        ]


def _going_on(ways: Sequence[tuple[PropagatedObject, list[int], np.ndarray | None]]) -> list[_Way]:
    """Those of the ways that go on; the others take back what they announced."""
    for each, left, box in ways:
        if box is None:
            each.features.forgo(left)
    return [_Way(each, left, box) for each, left, box in ways if left and box is not None]


def tight_boxes(masks: torch.Tensor) -> list[np.ndarray | None]:
    """The tight boxes of masks, bool (n, y, x), as float64 x, y, x2, y2, the last two inclusive; None if empty."""
    columns, rows = masks.any(dim=1).cpu().numpy(), masks.any(dim=2).cpu().numpy()
    found = [(np.flatnonzero(x), np.flatnonzero(y)) for x, y in zip(columns, rows, strict=True)]
    return [np.array([x[0], y[0], x[-1], y[-1]], float) if len(x) else None for x, y in found]


def widened(box: np.ndarray, widening: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """A box x, y, x2, y2 that grows to each side by so many pixels along x and y, inside a frame (height, width)."""
    x, y = widening
    height, width = size
    grown = box + np.array([-x, -y, x, y])
    return np.clip(grown, 0, [width - 1, height - 1] * 2).astype(np.float32)
