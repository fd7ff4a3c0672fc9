"""SAM 2's memory carries prompts through volumes: objects of any schemes and volumes move in lockstep, as one batch.

The package's `SAM2VideoPredictor` is what the results equal; it tracks objects one after another. Per object it does
this: the prompted slices are segmented without memory; their masks enter memory in binary form; every other slice
attends to the prompted ones, to the slices before it in the direction of travel, and to the objects' pointers. The
forward pass begins at the first prompted slice, and passes by the others. The reverse pass follows from there in the
same state, so that its first slices also see memories of the forward pass.

At one distance from their first prompted slices, objects with one prompted slice have the same number of memories,
wherever those slices are. That is what makes them a batch; near the ends of volumes of different depth, and behind
further prompted slices, it falls apart into smaller ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_utils import get_1d_sine_pe, select_closest_cond_frames
from torch.nn import functional

from volprompt.models.base import ArchitectureError, batches_of_one_form, in_batches, pack_bits
from volprompt.models.features import SliceFeatures, gather
from volprompt.models.holes import fill_holes
from volprompt.models.sam2_inputs import mask_inputs, point_inputs
from volprompt.models.tracked import TrackedObject
from volprompt.prompts.schemes import ObjectPrompt


class _Row:
    """A place in the batch: an object on its way, and where in the memory bank its earlier slices are."""

    def __init__(self, number: int, tracked: TrackedObject, places: int) -> None:
        """places: for slices that are not prompted; the first ones in the bank belong to the prompted slices."""
        self.number = number
        self.tracked = tracked
        self.prompted = {prompt.slice: place for place, prompt in enumerate(tracked.prompts)}
        self.start = min(self.prompted)
        self.places: dict[int, int] = {}
        self.free = list(range(len(self.prompted), len(self.prompted) + places))
        self.passed: set[int] = set()

    def remember(self, index: int) -> int:
        """A free place for the memory of a slice."""
        self.places[index] = self.free.pop()
        self.passed.add(index)
        return self.places[index]

    def forget(self, index: int) -> None:
        """Give back the place of a slice that no later one reads."""
        if index in self.places:
            self.free.append(self.places.pop(index))

    def forget_beyond(self, last: int) -> None:
        """Give back the places of all slices after `last`."""
        for index in [index for index in self.places if index > last]:
            self.forget(index)


@dataclass(frozen=True)
class _Step:
    """A row's next slice, and what it recalls there.

    spatial: (temporal position, place in the bank) of each spatial memory; pointers: (distance, slice) of each object
    pointer, in slices.
    """

    row: _Row
    index: int
    spatial: list[tuple[int, int]]
    pointers: list[tuple[int, int]]

    @property
    def form(self) -> tuple[tuple[int, ...], int]:
        """Steps of one form can be one batch."""
        return tuple(position for position, _ in self.spatial), len(self.pointers)


class Sam2Tracker:
    """Carries objects through their volumes with a `sam2.modeling.sam2_base.SAM2Base`.

    positions: of the coarsest level, see `pixel_positions`; hole_area: see `fill_holes`.
    """

    def __init__(self, module: Any, positions: torch.Tensor, hole_area: int = 0) -> None:
        if not module.num_maskmem or not module.directly_add_no_mem_embed:
            raise ArchitectureError("tracking needs num_maskmem of at least 1 and directly_add_no_mem_embed: true")
        self.module = module
        self.positions = positions
        self.hole_area = hole_area
        # The farthest slice whose spatial memory a step reads.
        self.reach = module.num_maskmem * module.memory_temporal_stride_for_eval
        # Of a row, beside the prompted slices': what the reverse pass still reads, the last ones, a new one
        self.places = 2 * self.reach + 1
        self.memory = torch.empty(0)
        self.memory_positions = torch.empty(0)
        self.pointers = torch.empty(0)

    def track(
        self, objects: Sequence[TrackedObject], reset_between_directions: bool
    ) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """See `Tracker.track`; with `reset_between_directions` both directions move at once."""
        passes = 2 if reset_between_directions else 1
        rows = [_Row(number, each, self.places) for number, each in enumerate(list(objects) * passes)]
        yield [(each.features, prompt.slice) for each in objects for prompt in each.prompts]
        self._segment_prompted(objects, rows)
        if reset_between_directions:
            half = len(objects)
            yield from self._travel([(row, row.number >= half) for row in rows], reset=True)
        else:
            yield from self._travel([(row, False) for row in rows], reset=False)
            for row in rows:
                row.forget_beyond(row.start + self.reach)
            yield from self._travel([(row, True) for row in rows], reset=False)

    def _travel(self, rows: Sequence[tuple[_Row, bool]], reset: bool) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Rows, each forwards or in reverse (True), slice by slice away from where they were prompted."""
        distance = 0
        while True:
            distance += 1
            at = [(row, row.start - distance if reverse else row.start + distance, reverse) for row, reverse in rows]
            inside = [each for each in at if 0 <= each[1] < each[0].tracked.features.depth]
            if not inside:
                return
            moving = [each for each in inside if each[1] not in each[0].prompted]
            yield [(row.tracked.features, index) for row, index, _ in moving]
            steps = [self._plan_step(row, index, reverse) for row, index, reverse in moving]
            for batch in _batches_of_steps(steps):
                self._advance(batch)
            for row, index, reverse in inside:
                passed = index + self.reach if reverse else index - self.reach
                # The reverse pass reads the forward pass's memories of the slices behind the start.
                if reset or reverse or passed > row.start + self.reach:
                    row.forget(passed)

    def _plan_step(self, row: _Row, index: int, reverse: bool) -> _Step:
        """What the package's `_prepare_memory_conditioned_features` reads, by its rules and in its order."""
        module, sign = self.module, -1 if reverse else 1
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
            return _Step(row, index, spatial, [])
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
        return _Step(row, index, spatial, pointers)

    def _segment_prompted(self, objects: Sequence[TrackedObject], rows: Sequence[_Row]) -> None:
        """Segment the prompted slices without memory, and remember them."""
        given = [(each, prompt) for each in objects for prompt in each.prompts]
        for size in {each.size for each in objects}:
            for batch in batches_of_one_form((pair for pair in given if pair[0].size == size), lambda pair: pair[1]):
                *fine, coarse = gather([(each.features, prompt.slice) for each, prompt in batch])
                low_res, pointer, presence = self._decode_prompts([prompt for _, prompt in batch], size, coarse, fine)
                low_res = fill_holes(low_res, self.hole_area)
                memory, positions = self._encode_memory(coarse, self._enlarge(low_res), presence, prompted=True)
                if not len(self.memory):
                    self._allocate(rows, memory, pointer, positions)
                for number, ((each, prompt), mask) in enumerate(zip(batch, _pack_resized(low_res, size), strict=True)):
                    each.masks[prompt.slice] = mask
                    for row in rows:
                        if row.tracked is each:
                            self.memory[row.number, row.prompted[prompt.slice]] = memory[number]
                            self.pointers[row.number, prompt.slice] = pointer[number]

    def _decode_prompts(
        self, prompts: Sequence[ObjectPrompt], size: tuple[int, int], coarse: torch.Tensor, fine: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prompts of one form without memory: mask logits (n, 1, y, x), object pointers (n, channel), presence (n, 1).

        A mask that is a prompt is also the answer, in models that are set so (the published ones are).
        """
        module, points, masks = self.module, None, None
        if prompts[0].mask is None:
            points = point_inputs(prompts, size, module.image_size, coarse.device)
        else:
            masks = mask_inputs(prompts, module.image_size, coarse.device)
        if masks is not None and module.use_mask_input_as_output_without_sam:
            *_, low_res, _, pointer, presence = module._use_mask_as_output(coarse, fine or None, masks)
            return low_res, pointer, presence
        *_, low_res, _, pointer, presence = module._forward_sam_heads(
            backbone_features=coarse + module.no_mem_embed.reshape(1, -1, 1, 1),
            point_inputs=points,
            mask_inputs=masks,
            high_res_features=fine or None,
            multimask_output=module._use_multimask(True, points),
        )
        return low_res, pointer, presence

    def _enlarge(self, low_res: torch.Tensor) -> torch.Tensor:
        """Mask logits at the size of the model's image, (n, 1, y, x)."""
        size = (self.module.image_size, self.module.image_size)
        return functional.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)

    def _allocate(
        self, rows: Sequence[_Row], memory: torch.Tensor, pointer: torch.Tensor, positions: torch.Tensor
    ) -> None:
        """The memory bank: spatial memories (row, place, pixel, channel) and pointers (row, slice, channel)."""
        depth = max(row.tracked.features.depth for row in rows)
        places = self.places + max(len(row.prompted) for row in rows)
        # The package keeps memory in bfloat16.
        self.memory = memory.new_empty((len(rows), places, *memory.shape[1:]), dtype=torch.bfloat16)
        self.pointers = pointer.new_empty((len(rows), depth, pointer.shape[1]))
        self.memory_positions = positions

    def _advance(self, batch: Sequence[_Step]) -> None:
        """Segment the next slice of each row, and remember it."""
        *fine, coarse = gather([(step.row.tracked.features, step.index) for step in batch])
        memory, positions, pointer_tokens = self._recall(batch)
        embedded = self._attend(coarse, memory, positions, pointer_tokens)
        *_, low_res, high_res, pointer, presence = self.module._forward_sam_heads(
            backbone_features=embedded,
            high_res_features=fine or None,
            multimask_output=self.module._use_multimask(False, None),
        )
        # As in the package: of a slice on the way the mask is remembered with its holes.
        memory, _ = self._encode_memory(coarse, high_res, presence, prompted=False)
        low_res = fill_holes(low_res, self.hole_area)
        numbers = [step.row.number for step in batch]
        self.memory[numbers, [step.row.remember(step.index) for step in batch]] = memory.to(torch.bfloat16)
        self.pointers[numbers, [step.index for step in batch]] = pointer.to(self.pointers.dtype)
        for size in {step.row.tracked.size for step in batch}:
            chosen = [number for number, step in enumerate(batch) if step.row.tracked.size == size]
            for number, mask in zip(chosen, _pack_resized(low_res[chosen], size), strict=True):
                batch[number].row.tracked.masks[batch[number].index] = mask

    def _attend(
        self, coarse: torch.Tensor, memory: torch.Tensor, positions: torch.Tensor, pointer_tokens: int
    ) -> torch.Tensor:
        """The coarsest level with memory in it: what the package's `MemoryAttention` does, batch first.

        Objects on one slice are the same until memory is read, so their first self-attention is done once.
        """
        attention = self.module.memory_attention
        own = self.positions.to(coarse.dtype)
        one_slice = coarse.stride(0) == 0
        seen = (coarse[:1] if one_slice else coarse).flatten(2).transpose(1, 2)
        if attention.pos_enc_at_input:
            seen = seen + 0.1 * own
        for number, layer in enumerate(attention.layers):
            rotary = isinstance(layer.cross_attn_image, RoPEAttention)
            seen = layer._forward_sa(seen, own)
            if number == 0:
                seen = seen.expand(len(coarse), -1, -1)
            seen = layer._forward_ca(seen, memory, own, positions, pointer_tokens if rotary else 0)
            seen = seen + layer.linear2(layer.activation(layer.linear1(layer.norm3(seen))))
        return attention.norm(seen).transpose(1, 2).reshape(coarse.shape)

    def _encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Memory encoder, for mask logits (n, 1, y, x) at the size of the model's image.

        Returns spatial memories (n, pixel, channel) and the encoding of their pixels (pixel, channel).
        """
        memory, positions = self.module._encode_new_memory(
            current_vision_feats=[_flatten_pixels(coarse)],
            feat_sizes=[coarse.shape[-2:]],
            pred_masks_high_res=high_res,
            object_score_logits=presence,
            is_mask_from_pts=prompted,
        )
        return memory.flatten(2).transpose(1, 2), positions[-1][0].flatten(1).transpose(0, 1)

    def _recall(self, batch: Sequence[_Step]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Memory tokens (n, token, channel), their position encodings, and how many of them are object pointers."""
        module = self.module
        rows = [[step.row.number] for step in batch]
        spatial = self.memory[rows, [[place for _, place in step.spatial] for step in batch]]
        in_time = module.maskmem_tpos_enc[[module.num_maskmem - position - 1 for position, _ in batch[0].spatial]]
        encoding = (self.memory_positions + in_time.flatten(1)[:, None]).flatten(0, 1)
        memory, encoding = spatial.flatten(1, 2), encoding.expand(len(batch), -1, -1)
        if not batch[0].pointers:
            return memory, encoding, 0
        pointers = self.pointers[rows, [[index for _, index in step.pointers] for step in batch]]
        pointer_encoding = self._encode_pointer_distances(batch, pointers)
        # A pointer is wider than a memory token: it is split.
        parts = pointers.shape[-1] // module.mem_dim
        tokens = pointers.reshape(len(batch), -1, module.mem_dim)
        pointer_encoding = pointer_encoding.repeat_interleave(parts, dim=1)
        return torch.cat([memory, tokens], dim=1), torch.cat([encoding, pointer_encoding], dim=1), tokens.shape[1]

    def _encode_pointer_distances(self, batch: Sequence[_Step], pointers: torch.Tensor) -> torch.Tensor:
        """How far away each pointer is, encoded: (n, pointer, channel)."""
        module = self.module
        if not module.add_tpos_enc_to_obj_ptrs:
            return pointers.new_zeros((*pointers.shape[:2], module.mem_dim))
        away = [[distance for distance, _ in step.pointers] for step in batch]
        farthest = [min(step.row.tracked.features.depth, module.max_obj_ptrs_in_encoder) - 1 for step in batch]
        shares = torch.tensor(away) / torch.tensor(farthest)[:, None]
        width = module.hidden_dim if module.proj_tpos_enc_in_obj_ptrs else module.mem_dim
        return module.obj_ptr_tpos_proj(get_1d_sine_pe(shares.to(pointers.device), dim=width))


def pixel_positions(module: Any) -> torch.Tensor:
    """The encoding of pixels, (1, pixel, channel), that the package's encoder gives with its coarsest features.

    It depends on their size alone.
    """
    height, width = module.sam_prompt_encoder.image_embedding_size
    device = module.no_mem_embed.device
    encoding = module.image_encoder.neck.position_encoding(torch.empty(1, 1, height, width, device=device))
    return encoding.flatten(2).transpose(1, 2)


def _batches_of_steps(steps: Iterable[_Step]) -> Iterator[Sequence[_Step]]:
    groups: dict[Any, list[_Step]] = {}
    for step in steps:
        groups.setdefault(step.form, []).append(step)
    for group in groups.values():
        yield from in_batches(group)


def _flatten_pixels(level: torch.Tensor) -> torch.Tensor:
    """(n, channel, y, x) as the package's attention takes it, (pixel, n, channel)."""
    return level.flatten(2).permute(2, 0, 1)


def _pack_resized(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Mask logits (n, 1, y, x) resized to the frame and thresholded, as bits (n, y, ceil(x / 8))."""
    resized = functional.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    return pack_bits(resized[:, 0] > 0)
