"""Memory carries prompts through volumes: objects of any schemes and volumes move in lockstep, as one batch.

This is the memory of SAM 2, and of the models that grew from it. The package's `SAM2VideoPredictor`, and the video
models of transformers, are what the results equal; they track objects one after another. Per object they do this: the
prompted slices are segmented without memory; their masks enter memory in binary form; every other slice attends to the
prompted ones, to the slices before it in the direction of travel, and to the objects' pointers. The forward pass begins
at the first prompted slice, and passes by the others. The reverse pass follows from there in the same state, so that
its first slices also see memories of the forward pass. They are the only thing that it needs of the forward pass: once
they are there, both move on side by side, and nothing changes but the size of the batches.

A correction click is added to the prompts of its slice. The slice is segmented again with all of them, with memory as
in the direction in which it was last tracked, and with the mask logits that it had; its new mask enters memory in
binary form, as that of a prompted slice. Then both passes follow once more. The package does the same if it is set so
(`add_all_frames_to_correct_as_cond`, and `clear_old_points=False` and `start_frame_idx` in its calls).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from volprompt.models.base import batches_of_one_form, in_batches, pack_bits
from volprompt.models.features import SliceFeatures, equal_neighbours, gather
from volprompt.models.holes import fill_holes
from volprompt.models.memory_bank import MemoryBank
from volprompt.models.memory_parts import Heads, MemoryParts
from volprompt.models.memory_plan import Reads, Row, Step, Writes, batches_of_steps, plan_step, reads_of, writes_of
from volprompt.models.sam2_inputs import as_mask_input, mask_inputs, point_inputs
from volprompt.models.tracked import TrackedObject, wait_for_forwards
from volprompt.prompts.corrections import Click
from volprompt.prompts.schemes import ObjectPrompt


class _Rows(NamedTuple):
    """An object's rows in the memory bank: one for both directions, or one for each."""

    forward: Row
    reverse: Row


class MemoryTracker:
    """Carries objects through their volumes with a model's memory.

    hole_area: see `fill_holes`; largest_batch: objects that are one batch at most.
    """

    def __init__(self, parts: MemoryParts, hole_area: int, largest_batch: int) -> None:
        self.parts = parts
        self.hole_area = hole_area
        self.largest_batch = largest_batch
        self.head_start = 0
        self.reset_between_directions = False
        self.rows: dict[TrackedObject, _Rows] = {}
        self.bank: MemoryBank

    def track(
        self, objects: Sequence[TrackedObject], reset_between_directions: bool
    ) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """See `Tracker.track`. Both directions move side by side: from the start with `reset_between_directions`, else
        once the forward pass has its head start.
        """
        self.reset_between_directions = reset_between_directions
        self.head_start = 0 if reset_between_directions else self.parts.rules.head_start
        self._give_rows(objects)
        yield [(each.features, prompt.slice) for each in objects for prompt in each.prompts]
        self._segment_prompted(objects)
        yield from self._propagate(objects)

    def correct(self, clicks: Mapping[TrackedObject, Click]) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """See `Tracker.correct`."""
        yield [(each.features, click.slice) for each, click in clicks.items()]
        for batch in _batches_of_clicks(
            [self._plan_click(each, click) for each, click in clicks.items()], self.largest_batch
        ):
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
            # Of slices on the way: what the reverse pass still reads, and the last ones and a new one of both passes
            size = each.features.depth if lasting else len(each.prompts) + each.clicks + 3 * self.parts.rules.reach + 2
            rows.append(Row(number, each, range(places, places + size), lasting))
            places += size
        # With one pass, the last rows are the first ones.
        pairs = zip(objects, rows, rows[-len(objects) :], strict=False)
        self.rows = {each: _Rows(forward, reverse) for each, forward, reverse in pairs}
        depth = max(each.features.depth for each in objects)
        self.bank = MemoryBank(self.parts, len(rows), places, depth)

    def _propagate(self, objects: Sequence[TrackedObject]) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Carry objects forwards and in reverse from the slices that they set out from."""
        forwards = [self.rows[each].forward for each in objects]
        reverse = [self.rows[each].reverse for each in objects]
        if self.reset_between_directions:
            for row in [*forwards, *reverse]:
                row.forget_the_way()
        planned = list(self._plan([*((row, False) for row in forwards), *((row, True) for row in reverse)]))
        batches = [batch for turn in planned for batch in turn]
        reads = iter(self._reads_of([[step for step, _ in batch] for batch in batches]))
        writes = iter(self._writes_of([[(step.row, step.index, place) for step, place in batch] for batch in batches]))
        for turn in planned:
            yield [(step.row.tracked.features, step.index) for batch in turn for step, _ in batch]
            for batch in turn:
                self._advance([step for step, _ in batch], next(reads), next(writes))

    def _plan(self, rows: Sequence[tuple[Row, bool]]) -> Iterator[list[Sequence[tuple[Step, int]]]]:
        """For each turn the batches of steps, each with the place that its memory will take.

        rows: forwards, and in reverse (True); each moves by a slice in every turn, once it has set out.
        """
        for turn in count(1):
            at = [(row, self._slice_at(turn, row, reverse), reverse) for row, reverse in rows]
            inside = [(row, index, reverse) for row, index, reverse in at if index is not None]
            if not inside:
                return
            moving = [each for each in inside if each[1] not in each[0].prompted]
            steps = [plan_step(self.parts.rules, row, index, reverse) for row, index, reverse in moving]
            batches = batches_of_steps(steps, self.largest_batch)
            yield [[(step, step.row.remember(step.index)) for step in batch] for batch in batches]
            for row, index, reverse in inside:
                passed = index + self.parts.rules.reach if reverse else index - self.parts.rules.reach
                # The reverse pass reads the forward pass's memories of the slices behind the start.
                if self.reset_between_directions or reverse or passed > row.start + self.parts.rules.reach:
                    row.forget(passed)

    def _slice_at(self, turn: int, row: Row, reverse: bool) -> int | None:
        """The slice that a row comes to in a turn; None before it sets out, and beyond the volume."""
        forwards = row.tracked.features.depth - 1 - row.start
        if not reverse:
            return row.start + turn if turn <= forwards else None
        distance = turn - wait_for_forwards(self.head_start, forwards)
        return row.start - distance if 0 < distance <= row.start else None

    def _reads_of(self, batches: Sequence[Sequence[Step]]) -> list[Reads]:
        return reads_of(self.parts.rules, batches, self.bank.depth, self.parts.positions.device)

    def _writes_of(self, batches: Sequence[Sequence[tuple[Row, int, int]]]) -> list[Writes]:
        return writes_of(batches, self.bank.depth, self.parts.positions.device)

    def _segment_prompted(self, objects: Sequence[TrackedObject]) -> None:
        """Segment the prompted slices without memory, and remember them."""
        given = [(each, prompt) for each in objects for prompt in each.prompts]
        for size in {each.size for each in objects}:
            of_size = (pair for pair in given if pair[0].size == size)
            for batch in batches_of_one_form(of_size, lambda pair: pair[1], self.largest_batch):
                *fine, coarse = gather([(each.features, prompt.slice) for each, prompt in batch])
                decoded = self._decode_prompts([prompt for _, prompt in batch], size, coarse, fine)
                self._remember_prompted([(each, prompt.slice) for each, prompt in batch], coarse, decoded)

    def _decode_prompts(
        self, prompts: Sequence[ObjectPrompt], size: tuple[int, int], coarse: torch.Tensor, fine: list[torch.Tensor]
    ) -> Heads:
        """Decode prompts of one form without memory; a mask that is a prompt is also the answer."""
        if prompts[0].mask is not None:
            return self.parts.take_mask(coarse, fine, mask_inputs(prompts, self.parts.image_size, coarse.device))
        points = point_inputs(prompts, size, self.parts.image_size, coarse.device)
        return self.parts.decode(coarse + self.parts.no_memory, fine, points, None, first=True)

    def _plan_click(self, tracked: TrackedObject, click: Click) -> tuple[Step, ObjectPrompt]:
        """Add a click to its object's prompts; what is recalled on its slice, and all prompts of that slice."""
        row = self.rows[tracked].reverse
        # The reverse pass was the last to see the slices before its start, and the start itself; it is left out
        # where it has nowhere to go.
        in_reverse = 0 < row.start >= click.slice
        return plan_step(self.parts.rules, row, click.slice, in_reverse), tracked.add_click(click)

    def _segment_clicked(self, batch: Sequence[tuple[Step, ObjectPrompt]]) -> None:
        """Segment slices, each of another object, with the prompts that they have now, and remember them."""
        steps, prompts = [step for step, _ in batch], [prompt for _, prompt in batch]
        (reads,) = self._reads_of([steps])
        coarse, fine, seen = self._look_at(steps, reads)
        points = point_inputs(prompts, steps[0].row.tracked.size, self.parts.image_size, coarse.device)
        before = as_mask_input([step.row.logits.get(step.index) for step in steps])
        decoded = self.parts.decode(seen, fine, points, before, first=False)
        self._remember_prompted([(step.row.tracked, step.index) for step in steps], coarse, decoded)

    def _remember_prompted(
        self, slices: Sequence[tuple[TrackedObject, int]], coarse: torch.Tensor, decoded: Heads
    ) -> None:
        """Remember slices with prompts, of objects with frames of one size, in all rows of their objects."""
        decoded = decoded._replace(low_res=fill_holes(decoded.low_res, self.hole_area))
        if self.parts.remembers_shown or self.hole_area:
            size = (self.parts.image_size, self.parts.image_size)
            shown = functional.interpolate(decoded.low_res.float(), size, mode="bilinear", align_corners=False)
            decoded = decoded._replace(high_res=shown)
        memory = self.parts.encode_memory(coarse, decoded.high_res, decoded.presence, prompted=True)
        # The n-th of the rows of each object: one memory for all of its rows
        for rows in zip(*(self.rows[tracked] for tracked, _ in slices), strict=True):
            kept = [(row, index, row.remember_prompted(index)) for row, (_, index) in zip(rows, slices, strict=True)]
            (writes,) = self._writes_of([kept])
            self.bank.store(writes, memory, decoded.pointer)
        self._show([self.rows[tracked].reverse for tracked, _ in slices], [index for _, index in slices], decoded)

    def _advance(self, steps: Sequence[Step], reads: Reads, writes: Writes) -> None:
        """Segment the next slice of each row, and remember it."""
        coarse, fine, seen = self._look_at(steps, reads)
        decoded = self.parts.decode(seen, fine, None, None, first=False)
        # As in the package: of a slice on the way the mask is remembered with its holes.
        memory = self.parts.encode_memory(coarse, decoded.high_res, decoded.presence, prompted=False)
        self.bank.store(writes, memory, decoded.pointer)
        decoded = decoded._replace(low_res=fill_holes(decoded.low_res, self.hole_area))
        self._show([step.row for step in steps], [step.index for step in steps], decoded)

    def _show(self, rows: Sequence[Row], slices: Sequence[int], decoded: Heads) -> None:
        """Write masks and confidence into the rows' objects, and keep the logits of lasting rows."""
        confidence = torch.cat([decoded.iou.float(), decoded.presence.float()], dim=1)
        first = 0
        for size, group in groupby(rows, lambda row: row.tracked.size):
            last = first + len(list(group))
            masks = _pack_resized(decoded.low_res[first:last], size)
            for number, mask in enumerate(masks, first):
                row, index = rows[number], slices[number]
                row.tracked.masks[index] = mask
                row.tracked.confidence[:, index] = confidence[number]
                if row.lasting:
                    row.logits[index] = decoded.low_res[number].float().clone()
            first = last

    def _look_at(self, steps: Sequence[Step], reads: Reads) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Of the slices of some steps the coarsest level, the finer ones, and the coarsest with memory in it."""
        slices = [(step.row.tracked.features, step.index) for step in steps]
        *fine, coarse = gather(slices)
        recalled = self.bank.recall(reads)
        seen = self.parts.attention(coarse, self.parts.positions, *recalled, equal_neighbours(slices))
        return coarse, fine, seen


def _batches_of_clicks(
    clicked: Iterable[tuple[Step, ObjectPrompt]], largest: int
) -> Iterator[Sequence[tuple[Step, ObjectPrompt]]]:
    """Batches whose steps and prompts have one form, in frames of one size, all with or all without logits."""
    groups: dict[Any, list[tuple[Step, ObjectPrompt]]] = {}
    for step, prompt in clicked:
        form = (step.form, prompt.form, step.row.tracked.size, step.index in step.row.logits)
        groups.setdefault(form, []).append((step, prompt))
    for group in groups.values():
        yield from in_batches(group, largest)


def _pack_resized(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Mask logits (n, 1, y, x) resized to the frame and thresholded, as bits (n, y, ceil(x / 8))."""
    resized = functional.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    return pack_bits(resized[:, 0] > 0)
