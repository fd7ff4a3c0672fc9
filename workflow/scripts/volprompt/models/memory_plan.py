"""What a model reads of its memory on each slice of a pass, planned before the pass begins.

At one distance from their first prompted slices, objects with one prompted slice have the same number of memories,
wherever those slices are. That is what makes them a batch; near the ends of volumes of different depth, behind further
prompted slices, and after corrections it falls apart into smaller ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sam2.modeling.sam2_utils import select_closest_cond_frames

from volprompt.models.base import in_batches, to_device
from volprompt.models.tracked import TrackedObject


@dataclass(frozen=True)
class MemoryRules:
    """What of its memory a model reads on a slice, as SAM 2 and those that grew from it do.

    slices: spatial memories at most, one of them of a prompted slice; stride: of the slices on the way that are read;
    prompted: memories of prompted slices at most, -1 for all; pointers: how far back object pointers are read, in
    slices, 0 for none; signed: whether the distance of a pointer has a sign; past_only: whether pointers of prompted
    slices ahead are left out; pointers_of_all: whether pointers are read of all prompted slices, and not of the closest
    `prompted` ones alone.
    """

    slices: int
    stride: int = 1
    prompted: int = -1
    pointers: int = 16
    signed: bool = True
    past_only: bool = True
    pointers_of_all: bool = False

    @property
    def reach(self) -> int:
        """How far away the farthest slice is whose spatial memory a step reads."""
        return self.slices * self.stride

    @property
    def head_start(self) -> int:
        """Steps after which a forward pass reads nothing before its start, and has made what the reverse pass reads."""
        return max(self.reach, self.pointers)


class Row:
    """An object on its way, and where in the memory bank its earlier slices are.

    prompted: place of each prompted slice, in the order in which they were prompted; places: of the other slices;
    passed: slices other than the prompted ones that have been tracked, whose pointers can be read; logits: of slices of
    a lasting row, float32 (1, y, x), as the decoder of a correction click is given them.
    """

    def __init__(self, number: int, tracked: TrackedObject, bank: range, lasting: bool) -> None:
        """bank: the row's places; lasting: whether no slice is forgotten, since a click can follow on any of them."""
        self.number = number
        self.tracked = tracked
        self.start = tracked.start
        self.lasting = lasting
        self.free = list(bank)
        self.prompted = {prompt.slice: self.free.pop(0) for prompt in tracked.prompts}
        self.places: dict[int, int] = {}
        self.passed: set[int] = set()
        self.logits: dict[int, torch.Tensor] = {}

    def remember(self, index: int) -> int:
        """The place for the memory of a slice on the way."""
        if index not in self.places:
            self.places[index] = self.free.pop()
        self.passed.add(index)
        return self.places[index]

    def remember_prompted(self, index: int) -> int:
        """The place for the memory of a slice with prompts; from now on it is a prompted one."""
        self.passed.discard(index)
        if index in self.places:
            self.prompted[index] = self.places.pop(index)
        elif index not in self.prompted:
            self.prompted[index] = self.free.pop()
        return self.prompted[index]

    def forget(self, index: int) -> None:
        """Give back the place of a slice that no later one reads."""
        if index in self.places and not self.lasting:
            self.free.append(self.places.pop(index))

    def forget_the_way(self) -> None:
        """Keep nothing but the prompted slices."""
        self.free += self.places.values()
        self.places.clear()
        self.passed.clear()
        self.logits = {index: logits for index, logits in self.logits.items() if index in self.prompted}


@dataclass(frozen=True)
class Step:
    """A row's next slice, and what it recalls there.

    spatial: (temporal position, place in the bank) of each spatial memory; pointers: (distance, slice) of each object
    pointer, in slices.
    """

    row: Row
    index: int
    spatial: list[tuple[int, int]]
    pointers: list[tuple[int, int]]

    @property
    def form(self) -> tuple[tuple[int, ...], int]:
        """Steps of one form can be one batch."""
        return tuple(position for position, _ in self.spatial), len(self.pointers)


def plan_step(rules: MemoryRules, row: Row, index: int, reverse: bool) -> Step:
    """What `_prepare_memory_conditioned_features` of the packages reads, in its order."""
    sign = -1 if reverse else 1
    # Prompted slices that are too many for attention count as slices on the way.
    prompted, others = select_closest_cond_frames(index, row.prompted, rules.prompted)
    spatial = [(0, place) for place in prompted.values()]
    for position in range(1, rules.slices):
        back = rules.slices - position
        # Counted along the way, earlier slices lie below; all but the last one are multiples of the stride.
        earlier = sign * index - 1 if back == 1 else ((sign * index - 2) // rules.stride - (back - 2)) * rules.stride
        place = row.places.get(sign * earlier, others.get(sign * earlier))
        if place is not None:
            spatial.append((position, place))
    if not rules.pointers:
        return Step(row, index, spatial, [])
    pointing = row.prompted if rules.pointers_of_all else prompted
    pointers = [
        (sign * (index - each) if rules.signed else abs(index - each), each)
        for each in pointing
        if not rules.past_only or sign * each <= sign * index
    ]
    for distance in range(1, min(row.tracked.features.depth, rules.pointers)):
        earlier = index - sign * distance
        if earlier in row.passed or (earlier in others and earlier not in pointing):
            pointers.append((distance, earlier))
    return Step(row, index, spatial, pointers)


def batches_of_steps(steps: Iterable[Step], largest: int) -> Iterator[Sequence[Step]]:
    """Batches of at most `largest` steps of one form."""
    groups: dict[Any, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.form, []).append(step)
    for group in groups.values():
        yield from in_batches(group, largest)


class Reads(NamedTuple):
    """What a batch of steps reads, as indices on the device.

    places: of spatial memories in the bank, (n, memory); in_time: the row of the temporal encoding of each, (memory,);
    pointers: rows of object pointers in the bank, (n, pointer); shares: how far away each is, as a share of the
    farthest that there can be, float32 (n, pointer).
    """

    places: torch.Tensor
    in_time: torch.Tensor
    pointers: torch.Tensor
    shares: torch.Tensor


class Writes(NamedTuple):
    """Where a batch of slices enters memory, as indices on the device: rows of memories and of pointers, each (n,)."""

    places: torch.Tensor
    pointers: torch.Tensor


def reads_of(rules: MemoryRules, batches: Sequence[Sequence[Step]], depth: int, device: torch.device) -> list[Reads]:
    """What batches of steps read; one transfer to the device for all of them. depth: slices of the deepest volume."""
    indices: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    for batch in batches:
        # Where there is one slice alone, the package divides 0 by 0, and its mask is empty.
        farthest = [max(1, min(step.row.tracked.features.depth, rules.pointers) - 1) for step in batch]
        distances = np.array([[distance for distance, _ in step.pointers] for step in batch], np.float32)
        shares.append(distances / np.array(farthest, np.float32)[:, None])
        indices += [
            np.array([[place for _, place in step.spatial] for step in batch]),
            np.array([rules.slices - position - 1 for position, _ in batch[0].spatial]),
            np.array([[step.row.number * depth + index for _, index in step.pointers] for step in batch]),
        ]
    uploaded = _at_once(indices, np.int64, device)
    parts = uploaded[::3], uploaded[1::3], uploaded[2::3], _at_once(shares, np.float32, device)
    return [Reads(*of_batch) for of_batch in zip(*parts, strict=True)]


def writes_of(slices: Sequence[Sequence[tuple[Row, int, int]]], depth: int, device: torch.device) -> list[Writes]:
    """Where batches of slices, each with its row and its place, enter memory; one transfer to the device for all."""
    indices = []
    for batch in slices:
        indices += [[place for _, _, place in batch], [row.number * depth + index for row, index, _ in batch]]
    uploaded = _at_once([np.array(each) for each in indices], np.int64, device)
    return [Writes(*of_batch) for of_batch in zip(uploaded[::2], uploaded[1::2], strict=True)]


def _at_once(arrays: Sequence[np.ndarray], kind: type, device: torch.device) -> list[torch.Tensor]:
    """Arrays of one type as tensors on the device."""
    if not arrays:
        return []
    flat = to_device(np.concatenate([each.ravel() for each in arrays]).astype(kind), device)
    parts = flat.split([each.size for each in arrays])
    return [part.view(each.shape) for part, each in zip(parts, arrays, strict=True)]
