"""What SAM 2 remembers of tracked objects, and what it recalls of that on a slice.

At one distance from their first prompted slices, objects with one prompted slice have the same number of memories,
wherever those slices are. That is what makes them a batch; near the ends of volumes of different depth, behind further
prompted slices, and after corrections it falls apart into smaller ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe, select_closest_cond_frames

from volprompt.models.base import in_batches
from volprompt.models.tracked import TrackedObject


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

    def forget_beyond(self, last: int) -> None:
        """Give back the places of all slices after `last`."""
        for index in [index for index in self.places if index > last]:
            self.forget(index)

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


def plan_step(module: Any, row: Row, index: int, reverse: bool) -> Step:
    """What the package's `_prepare_memory_conditioned_features` reads, by its rules and in its order.

    module: a `sam2.modeling.sam2_base.SAM2Base`.
    """
    sign = -1 if reverse else 1
    stride = module.memory_temporal_stride_for_eval
    # Prompted slices that are too many for attention count as slices on the way.
    prompted, others = select_closest_cond_frames(index, row.prompted, module.max_cond_frames_in_attn)
    spatial = [(0, place) for place in prompted.values()]
    for position in range(1, module.num_maskmem):
        back = module.num_maskmem - position
        # Counted along the way, earlier slices lie below; all but the last one are multiples of the stride.
        earlier = sign * index - 1 if back == 1 else ((sign * index - 2) // stride - (back - 2)) * stride
        place = row.places.get(sign * earlier, others.get(sign * earlier))
        if place is not None:
            spatial.append((position, place))
    if not module.use_obj_ptrs_in_encoder:
        return Step(row, index, spatial, [])
    signed, past_only = module.use_signed_tpos_enc_to_obj_ptrs, module.only_obj_ptrs_in_the_past_for_eval
    pointers = [
        (sign * (index - each) if signed else abs(index - each), each)
        for each in prompted
        if not past_only or sign * each <= sign * index
    ]
    for distance in range(1, min(row.tracked.features.depth, module.max_obj_ptrs_in_encoder)):
        earlier = index - sign * distance
        if earlier in row.passed or earlier in others:
            pointers.append((distance, earlier))
    return Step(row, index, spatial, pointers)


def batches_of_steps(steps: Iterable[Step]) -> Iterator[Sequence[Step]]:
    """Batches of steps of one form."""
    groups: dict[Any, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.form, []).append(step)
    for group in groups.values():
        yield from in_batches(group)


class MemoryBank:
    """Spatial memories, bfloat16 (place, pixel, channel) as the package keeps them, and pointers (row, slice, channel).

    positions: encoding of a memory's pixels, (pixel, channel).
    """

    def __init__(self, module: Any, rows: int, places: int, depth: int) -> None:
        """module: a `sam2.modeling.sam2_base.SAM2Base`; depth: slices of the deepest volume."""
        self.module = module
        self.rows, self.places, self.depth = rows, places, depth
        self.memory = torch.empty(0)
        self.pointers = torch.empty(0)
        self.positions = torch.empty(0)

    def store(
        self,
        rows: Sequence[Row],
        slices: Sequence[int],
        places: Sequence[int],
        memory: torch.Tensor,
        pointer: torch.Tensor,
    ) -> None:
        """Keep the memories (n, pixel, channel) and pointers (n, channel) of each row's slice."""
        if not len(self.memory):
            self.memory = memory.new_empty((self.places, *memory.shape[1:]), dtype=torch.bfloat16)
            self.pointers = pointer.new_empty((self.rows, self.depth, pointer.shape[1]))
        self.memory[list(places)] = memory.to(torch.bfloat16)
        self.pointers[[row.number for row in rows], list(slices)] = pointer.to(self.pointers.dtype)

    def recall(self, batch: Sequence[Step]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Memory tokens (n, token, channel), their position encodings, and how many of them are object pointers."""
        module = self.module
        spatial = self.memory[torch.tensor([[place for _, place in step.spatial] for step in batch])]
        in_time = module.maskmem_tpos_enc[[module.num_maskmem - position - 1 for position, _ in batch[0].spatial]]
        encoding = (self.positions + in_time.flatten(1)[:, None]).flatten(0, 1)
        memory, encoding = spatial.flatten(1, 2), encoding.expand(len(batch), -1, -1)
        if not batch[0].pointers:
            return memory, encoding, 0
        rows = [[step.row.number] for step in batch]
        pointers = self.pointers[rows, [[index for _, index in step.pointers] for step in batch]]
        pointer_encoding = self._encode_pointer_distances(batch, pointers)
        # A pointer is wider than a memory token: it is split.
        parts = pointers.shape[-1] // module.mem_dim
        tokens = pointers.reshape(len(batch), -1, module.mem_dim)
        pointer_encoding = pointer_encoding.repeat_interleave(parts, dim=1)
        return torch.cat([memory, tokens], dim=1), torch.cat([encoding, pointer_encoding], dim=1), tokens.shape[1]

    def _encode_pointer_distances(self, batch: Sequence[Step], pointers: torch.Tensor) -> torch.Tensor:
        """How far away each pointer is, encoded: (n, pointer, channel)."""
        module = self.module
        if not module.add_tpos_enc_to_obj_ptrs:
            return pointers.new_zeros((*pointers.shape[:2], module.mem_dim))
        away = [[distance for distance, _ in step.pointers] for step in batch]
        farthest = [min(step.row.tracked.features.depth, module.max_obj_ptrs_in_encoder) - 1 for step in batch]
        shares = torch.tensor(away) / torch.tensor(farthest)[:, None]
        width = module.hidden_dim if module.proj_tpos_enc_in_obj_ptrs else module.mem_dim
        return module.obj_ptr_tpos_proj(get_1d_sine_pe(shares.to(pointers.device), dim=width))
