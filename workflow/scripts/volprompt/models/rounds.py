"""Rounds of corrections: where a volume's masks are clicked on, and how the clicks and masks of each round are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from volprompt.prompts.corrections import Click, click_in_volume, click_on_slice


@dataclass(frozen=True)
class CorrectionReference:
    """What the simulated clicks of a volume are made from.

    masks: of each structure of a scheme with corrections, bits as numpy.packbits makes them, uint8 (slice, y,
    ceil(x / 8)).
    spacing: distance between voxels along slice, y and x, in millimetres.
    ignored: bits of the voxels that no score counts, where nobody clicks; None for none.
    """

    masks: Mapping[str, np.ndarray]
    spacing: tuple[float, float, float]
    ignored: np.ndarray | None = None

    def click_on_slice(self, structure: str, index: int, mask: np.ndarray) -> Click | None:
        """The click that corrects a structure's mask on one slice, bool (y, x); None where there is no error."""
        reference = _unpack(self._counted(self.masks[structure], index), mask.shape[1])
        if self.ignored is not None:
            mask = mask & ~_unpack(self.ignored[index], mask.shape[1])
        return click_on_slice(mask, reference, self.spacing[1:], index)

    def click_in_volume(self, structure: str, mask: np.ndarray, width: int, presence: bool) -> Click | None:
        """The click that corrects a structure's mask, bits (slice, y, ceil(x / 8)); None where there is no error.

        width: length of x; presence: whether the mask will be emptied on slices where the reference lacks the
        structure, so that there is nothing to correct.
        """
        reference = self.masks[structure]
        mask = mask if self.ignored is None else mask & ~self.ignored
        if presence:
            mask = mask * reference.any(axis=(1, 2), keepdims=True)
        reference = self._counted(reference)
        return click_in_volume(_unpack(mask, width), _unpack(reference, width), self.spacing)

    def _counted(self, reference: np.ndarray, index: int | slice = slice(None)) -> np.ndarray:
        """The bits of a reference, of some slices, without what is ignored."""
        return reference[index] if self.ignored is None else reference[index] & ~self.ignored[index]


def _unpack(bits: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(bits, axis=-1, count=width).view(bool)


class MadeClick(NamedTuple):
    """A correction click that was made, in round 1 or a later one; the other values are those of `Click`."""

    round: int
    structure: str
    slice: int
    x: int
    y: int
    label: int


class Rounds:
    """The rounds of one scheme on one volume: masks per structure, and the clicks made."""

    def __init__(
        self, structures: Sequence[str], clicks: int, shape: tuple[int, int, int], device: torch.device
    ) -> None:
        """clicks: rounds of corrections at most, 0 for none; shape: of bits, (slice, y, ceil(x / 8))."""
        self.clicks: list[MadeClick] = []
        self._masks = {
            structure: torch.zeros((clicks + 1, *shape), dtype=torch.uint8, device=device) for structure in structures
        }

    @property
    def current(self) -> dict[str, torch.Tensor]:
        """Bits of the newest masks, uint8 (slice, y, ceil(x / 8)) per structure, to be written to."""
        return {structure: masks[-1] for structure, masks in self._masks.items()}

    def show(self, number: int, structure: str, index: int, bits: torch.Tensor) -> None:
        """Set a slice's mask of round `number` and, until another one follows, of the later ones."""
        self._masks[structure][number:, index] = bits

    def end(self, number: int, structure: str) -> None:
        """Take the newest mask as that of round `number`."""
        masks = self._masks[structure]
        masks[number] = masks[-1]

    def add(self, number: int, structure: str, click: Click) -> None:
        """Note a click of round `number`."""
        self.clicks.append(MadeClick(number, structure, click.slice, click.x, click.y, click.label))

    def masks(self) -> dict[str, np.ndarray]:
        """Bits of each structure's masks of round 0 and of each round with a click on it, (round, slice, y, ...)."""
        last = dict.fromkeys(self._masks, 0)
        for click in self.clicks:
            last[click.structure] = max(last[click.structure], click.round)
        return {structure: masks[: last[structure] + 1].cpu().numpy() for structure, masks in self._masks.items()}

    def made(self) -> list[MadeClick]:
        """The clicks by round, structure and slice."""
        order = list(self._masks)
        return sorted(self.clicks, key=lambda click: (click.round, order.index(click.structure), click.slice))
