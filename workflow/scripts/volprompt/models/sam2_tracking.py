"""SAM 2's memory carries prompts through volumes: objects of any schemes and volumes move in lockstep, as one batch.

The package's `SAM2VideoPredictor` is what the results equal; it tracks objects one after another. Per object it does
this: the prompted slices are segmented without memory; their masks enter memory in binary form; every other slice
attends to the prompted ones, to the slices before it in the direction of travel, and to the objects' pointers. The
forward pass begins at the first prompted slice, and passes by the others. The reverse pass follows from there in the
same state, so that its first slices also see memories of the forward pass.

A correction click is added to the prompts of its slice. The slice is segmented again with all of them, with memory as
in the direction in which it was last tracked, and with the mask logits that it had; its new mask enters memory in
binary form, as that of a prompted slice. Then both passes follow once more. The package does the same if it is set so
(`add_all_frames_to_correct_as_cond`, and `clear_old_points=False` and `start_frame_idx` in its calls).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from sam2.modeling.sam.transformer import RoPEAttention
from torch.nn import functional

from volprompt.models.base import ArchitectureError, batches_of_one_form, in_batches, pack_bits
from volprompt.models.features import SliceFeatures, gather
from volprompt.models.holes import fill_holes
from volprompt.models.sam2_bank import MemoryBank, Row, Step, batches_of_steps, plan_step
from volprompt.models.sam2_inputs import as_mask_input, mask_inputs, point_inputs
from volprompt.models.tracked import TrackedObject
from volprompt.prompts.corrections import Click
from volprompt.prompts.schemes import ObjectPrompt


class _Rows(NamedTuple):
    """An object's rows in the memory bank: one for both directions, or one for each."""

    forward: Row
    reverse: Row


class _Decoded(NamedTuple):
    """What the heads make of some slices.

    low_res: mask logits of the decoder's size, float32 (n, 1, y, x); high_res: those of the size of the model's image;
    iou: predicted IoU (n, 1); pointer: object pointer (n, channel); presence: object score logit (n, 1).
    """

    low_res: torch.Tensor
    high_res: torch.Tensor
    iou: torch.Tensor
    pointer: torch.Tensor
    presence: torch.Tensor

    @classmethod
    def of(cls, outputs: Sequence[torch.Tensor]) -> _Decoded:
        """outputs: of the package's `_forward_sam_heads` or `_use_mask_as_output`."""
        _, _, iou, low_res, high_res, pointer, presence = outputs
        return cls(low_res, high_res, iou, pointer, presence)


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
        self.reset_between_directions = False
        self.rows: dict[TrackedObject, _Rows] = {}
        self.bank: MemoryBank

    def track(
        self, objects: Sequence[TrackedObject], reset_between_directions: bool
    ) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """See `Tracker.track`; with `reset_between_directions` both directions move at once."""
        self.reset_between_directions = reset_between_directions
        self._give_rows(objects)
        yield [(each.features, prompt.slice) for each in objects for prompt in each.prompts]
        self._segment_prompted(objects)
        yield from self._propagate(objects)

    def correct(self, clicks: Mapping[TrackedObject, Click]) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """See `Tracker.correct`."""
        yield [(each.features, click.slice) for each, click in clicks.items()]
        for batch in _batches_of_clicks([self._plan_click(each, click) for each, click in clicks.items()]):
            self._segment_clicked(batch)
        yield from self._propagate(list(clicks))

    def _give_rows(self, objects: Sequence[TrackedObject]) -> None:
        """Give each object its row, or its two rows, and each row its places in the memory bank."""
        passes = 2 if self.reset_between_directions else 1
        rows: list[Row] = []
        places = 0
        for number, each in enumerate(list(objects) * passes):
            # When a click comes, the package remembers the reverse pass, and the forward pass unless it is reset.
            lasting = bool(each.clicks) and (passes == 1 or number >= len(objects))
            # Of a slice on the way: what the reverse pass still reads, the last ones, a new one
            size = each.features.depth if lasting else len(each.prompts) + each.clicks + 2 * self.reach + 1
            rows.append(Row(number, each, range(places, places + size), lasting))
            places += size
        # With one pass, the last rows are the first ones.
        pairs = zip(objects, rows, rows[-len(objects) :], strict=False)
        self.rows = {each: _Rows(forward, reverse) for each, forward, reverse in pairs}
        self.bank = MemoryBank(self.module, len(rows), places, max(each.features.depth for each in objects))

    def _propagate(self, objects: Sequence[TrackedObject]) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Carry objects forwards and in reverse from the slices that they set out from."""
        forwards = [self.rows[each].forward for each in objects]
        reverse = [self.rows[each].reverse for each in objects]
        if self.reset_between_directions:
            for row in [*forwards, *reverse]:
                row.forget_the_way()
            yield from self._travel([*((row, False) for row in forwards), *((row, True) for row in reverse)])
            return
        yield from self._travel([(row, False) for row in forwards])
        for row in forwards:
            row.forget_beyond(row.start + self.reach)
        yield from self._travel([(row, True) for row in reverse])

    def _travel(self, rows: Sequence[tuple[Row, bool]]) -> Iterator[list[tuple[SliceFeatures, int]]]:
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
            steps = [plan_step(self.module, row, index, reverse) for row, index, reverse in moving]
            for batch in batches_of_steps(steps):
                self._advance(batch)
            for row, index, reverse in inside:
                passed = index + self.reach if reverse else index - self.reach
                # The reverse pass reads the forward pass's memories of the slices behind the start.
                if self.reset_between_directions or reverse or passed > row.start + self.reach:
                    row.forget(passed)

    def _segment_prompted(self, objects: Sequence[TrackedObject]) -> None:
        """Segment the prompted slices without memory, and remember them."""
        given = [(each, prompt) for each in objects for prompt in each.prompts]
        for size in {each.size for each in objects}:
            for batch in batches_of_one_form((pair for pair in given if pair[0].size == size), lambda pair: pair[1]):
                *fine, coarse = gather([(each.features, prompt.slice) for each, prompt in batch])
                decoded = self._decode_prompts([prompt for _, prompt in batch], size, coarse, fine)
                self._remember_prompted([(each, prompt.slice) for each, prompt in batch], coarse, decoded)

    def _decode_prompts(
        self, prompts: Sequence[ObjectPrompt], size: tuple[int, int], coarse: torch.Tensor, fine: list[torch.Tensor]
    ) -> _Decoded:
        """Decode prompts of one form without memory.

        A mask that is a prompt is also the answer, in models that are set so (the published ones are).
        """
        module, points, masks = self.module, None, None
        if prompts[0].mask is None:
            points = point_inputs(prompts, size, module.image_size, coarse.device)
        else:
            masks = mask_inputs(prompts, module.image_size, coarse.device)
        if masks is not None and module.use_mask_input_as_output_without_sam:
            return _Decoded.of(module._use_mask_as_output(coarse, fine or None, masks))
        outputs = module._forward_sam_heads(
            backbone_features=coarse + module.no_mem_embed.reshape(1, -1, 1, 1),
            point_inputs=points,
            mask_inputs=masks,
            high_res_features=fine or None,
            multimask_output=module._use_multimask(True, points),
        )
        return _Decoded.of(outputs)

    def _plan_click(self, tracked: TrackedObject, click: Click) -> tuple[Step, ObjectPrompt]:
        """Add a click to its object's prompts; what is recalled on its slice, and all prompts of that slice."""
        row = self.rows[tracked].reverse
        # The reverse pass was the last to see the slices before its start, and the start itself; it is left out
        # where it has nowhere to go.
        in_reverse = 0 < row.start >= click.slice
        return plan_step(self.module, row, click.slice, in_reverse), tracked.add_click(click)

    def _segment_clicked(self, batch: Sequence[tuple[Step, ObjectPrompt]]) -> None:
        """Segment slices, each of another object, with the prompts that they have now, and remember them."""
        steps, prompts = [step for step, _ in batch], [prompt for _, prompt in batch]
        *fine, coarse = gather([(step.row.tracked.features, step.index) for step in steps])
        points = point_inputs(prompts, steps[0].row.tracked.size, self.module.image_size, coarse.device)
        before = [step.row.logits.get(step.index) for step in steps]
        outputs = self.module._forward_sam_heads(
            backbone_features=self._attend(coarse, steps),
            point_inputs=points,
            mask_inputs=as_mask_input(before),
            high_res_features=fine or None,
            multimask_output=self.module._use_multimask(False, points),
        )
        self._remember_prompted([(step.row.tracked, step.index) for step in steps], coarse, _Decoded.of(outputs))

    def _remember_prompted(
        self, slices: Sequence[tuple[TrackedObject, int]], coarse: torch.Tensor, decoded: _Decoded
    ) -> None:
        """Remember slices with prompts, of objects with frames of one size, in all rows of their objects."""
        decoded = decoded._replace(low_res=fill_holes(decoded.low_res, self.hole_area))
        size = (self.module.image_size, self.module.image_size)
        enlarged = functional.interpolate(decoded.low_res.float(), size, mode="bilinear", align_corners=False)
        memory = self._encode_memory(coarse, enlarged, decoded.presence, prompted=True)
        for number, (tracked, index) in enumerate(slices):
            for row in dict.fromkeys(self.rows[tracked]):
                places = [row.remember_prompted(index)]
                self.bank.store([row], [index], places, memory[number, None], decoded.pointer[number, None])
        self._show([self.rows[tracked].reverse for tracked, _ in slices], [index for _, index in slices], decoded)

    def _advance(self, batch: Sequence[Step]) -> None:
        """Segment the next slice of each row, and remember it."""
        *fine, coarse = gather([(step.row.tracked.features, step.index) for step in batch])
        outputs = self.module._forward_sam_heads(
            backbone_features=self._attend(coarse, batch),
            high_res_features=fine or None,
            multimask_output=self.module._use_multimask(False, None),
        )
        decoded = _Decoded.of(outputs)
        # As in the package: of a slice on the way the mask is remembered with its holes.
        memory = self._encode_memory(coarse, decoded.high_res, decoded.presence, prompted=False)
        rows, slices = [step.row for step in batch], [step.index for step in batch]
        places = [step.row.remember(step.index) for step in batch]
        self.bank.store(rows, slices, places, memory, decoded.pointer)
        self._show(rows, slices, decoded._replace(low_res=fill_holes(decoded.low_res, self.hole_area)))

    def _show(self, rows: Sequence[Row], slices: Sequence[int], decoded: _Decoded) -> None:
        """Write masks and confidence into the rows' objects, and keep the logits of lasting rows."""
        confidence = torch.cat([decoded.iou.float(), decoded.presence.float()], dim=1)
        for size in {row.tracked.size for row in rows}:
            chosen = [number for number, row in enumerate(rows) if row.tracked.size == size]
            for number, mask in zip(chosen, _pack_resized(decoded.low_res[chosen], size), strict=True):
                row, index = rows[number], slices[number]
                row.tracked.masks[index] = mask
                row.tracked.confidence[:, index] = confidence[number]
                if row.lasting:
                    row.logits[index] = decoded.low_res[number].float().clone()

    def _attend(self, coarse: torch.Tensor, batch: Sequence[Step]) -> torch.Tensor:
        """The coarsest level with memory in it: what the package's `MemoryAttention` does, batch first.

        Objects on one slice are the same until memory is read, so their first self-attention is done once.
        """
        memory, positions, pointer_tokens = self.bank.recall(batch)
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
    ) -> torch.Tensor:
        """Memories (n, pixel, channel) of mask logits (n, 1, y, x) at the size of the model's image."""
        memory, positions = self.module._encode_new_memory(
            current_vision_feats=[_flatten_pixels(coarse)],
            feat_sizes=[coarse.shape[-2:]],
            pred_masks_high_res=high_res,
            object_score_logits=presence,
            is_mask_from_pts=prompted,
        )
        self.bank.positions = positions[-1][0].flatten(1).transpose(0, 1)
        return memory.flatten(2).transpose(1, 2)


def pixel_positions(module: Any) -> torch.Tensor:
    """The encoding of pixels, (1, pixel, channel), that the package's encoder gives with its coarsest features.

    It depends on their size alone.
    """
    height, width = module.sam_prompt_encoder.image_embedding_size
    device = module.no_mem_embed.device
    encoding = module.image_encoder.neck.position_encoding(torch.empty(1, 1, height, width, device=device))
    return encoding.flatten(2).transpose(1, 2)


def _batches_of_clicks(clicked: Iterable[tuple[Step, ObjectPrompt]]) -> Iterator[Sequence[tuple[Step, ObjectPrompt]]]:
    """Batches whose steps and prompts have one form, in frames of one size, all with or all without logits."""
    groups: dict[Any, list[tuple[Step, ObjectPrompt]]] = {}
    for step, prompt in clicked:
        form = (step.form, prompt.form, step.row.tracked.size, step.index in step.row.logits)
        groups.setdefault(form, []).append((step, prompt))
    for group in groups.values():
        yield from in_batches(group)


def _flatten_pixels(level: torch.Tensor) -> torch.Tensor:
    """(n, channel, y, x) as the package's attention takes it, (pixel, n, channel)."""
    return level.flatten(2).permute(2, 0, 1)


def _pack_resized(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Mask logits (n, 1, y, x) resized to the frame and thresholded, as bits (n, y, ceil(x / 8))."""
    resized = functional.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    return pack_bits(resized[:, 0] > 0)
