"""Checks of adapters that carry objects through volumes, or take whole volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from volprompt.models.base import PromptableModel
from volprompt.models.conformance_samples import (
    DEPTHS,
    FORMS,
    MASK_FORMS,
    SIZE,
    Check,
    frames_of,
    prompt_of,
    require,
    require_like,
    require_same,
)
from volprompt.models.features import SliceFeatures
from volprompt.models.tracked import TrackedObject, order_of_need, order_of_round
from volprompt.models.volume_model import VolumeModel, VolumePrompts, fault_of_mask
from volprompt.prompts.corrections import Click


class VideoChecks:
    """Of a model that carries objects through volumes."""

    def __init__(self, model: PromptableModel) -> None:
        self.model = model

    def checks(self) -> list[Check]:
        """All of them, the simple ones first."""
        return [
            self.fills_every_slice,
            self.ragged_depths_are_as_alone,
            self.tracks_the_same_every_time,
            self.prompts_on_several_slices,
            self.corrects,
        ]

    def object_in(self, depth: int, forms: Sequence[tuple[int, str]], clicks: int = 0) -> TrackedObject:
        """An object of a volume of its own, with prompts on slices; its masks hold what no tracker writes."""
        frames = self.model.prepare(frames_of(depth))
        prompts = [prompt_of(min(index, depth - 1), form) for index, form in forms]
        order = order_of_need([[prompt.slice for prompt in prompts]], depth, self.model.head_start)

        def encode(indices: list[int]) -> list[torch.Tensor]:
            return self.model.encode_for_video(frames[indices])

        features = SliceFeatures(encode, order, depth, 2, depth, lasting=clicks > 0)
        masks = torch.full((depth, SIZE[0], -(-SIZE[1] // 8)), 255, dtype=torch.uint8)
        return TrackedObject(prompts, features, SIZE, masks, torch.full((2, depth), torch.nan), clicks)

    def track(self, objects: Sequence[TrackedObject], reset: bool = False, click: Click | None = None) -> None:
        """Track objects together, and with a click on the first one once more."""
        tracker = self.model.tracker()
        for needed in tracker.track(objects, reset):
            self._require(needed)
        if click is not None:
            first = objects[0]
            kept = {index for index in first.prompted if index != click.slice}
            first.masks[[index for index in range(len(first.masks)) if index not in kept]] = 255
            first.features.expect(order_of_round([(first, click)], first.features.depth, self.model.head_start))
            for needed in tracker.correct({first: click}):
                self._require(needed)
        for each in objects:
            unused = each.features.unused
            require(not unused, f"slices {unused} have to be yielded and used once for each prompt and on each way")

    def _require(self, needed: Sequence[tuple[SliceFeatures, int]]) -> None:
        for features, index in needed:
            features.require([index])

    def masks_of(self, tracked: TrackedObject) -> np.ndarray:
        """The masks, bool (slice, y, x); Violation where a slice was left out."""
        bits = tracked.masks.numpy()
        require_like(
            tracked.masks, torch.uint8, (tracked.features.depth, SIZE[0], -(-SIZE[1] // 8)), "masks of an object"
        )
        left = [index for index in range(len(bits)) if (bits[index] == 255).all()]
        require(not left, f"no mask was written on slices {left}")
        require(not np.unpackbits(bits, axis=-1)[:, :, SIZE[1] :].any(), "bits beyond the frame's width are set")
        return np.unpackbits(bits, axis=-1, count=SIZE[1]).astype(bool)

    def fills_every_slice(self) -> None:
        """track: every form of prompt, on the first, a middle and the last slice, fills all slices; empty masks too"""
        for form in (*FORMS, *MASK_FORMS):
            for index in (0, 2, 4):
                for reset in (False, True):
                    tracked = self.object_in(5, [(index, form)])
                    self.track([tracked], reset)
                    self.masks_of(tracked)

    def ragged_depths_are_as_alone(self) -> None:
        """track: volumes of different depth together, one of a single slice, give the masks of each alone"""
        together = [self.object_in(depth, [(1, "point")]) for depth in DEPTHS]
        self.track(together)
        for depth, each in zip(DEPTHS, together, strict=True):
            alone = self.object_in(depth, [(1, "point")])
            self.track([alone])
            require_same(self.masks_of(each), self.masks_of(alone), f"a volume of {depth} slices")

    def tracks_the_same_every_time(self) -> None:
        """track: the same prompts have the same masks every time, in any order of objects"""
        runs = []
        for turned in (False, False, True):
            objects = [self.object_in(5, [(2, form)]) for form in ("point", "box")]
            self.track(objects[::-1] if turned else objects)
            runs.append([self.masks_of(each) for each in objects])
        for first, again, turned in zip(*runs, strict=True):
            require(bool((first == again).all()), "the same objects have other masks the second time")
            require_same(first, turned, "an object in another order of objects")

    def prompts_on_several_slices(self) -> None:
        """track: an object with prompts on two slices, of two forms"""
        tracked = self.object_in(5, [(1, "point"), (3, "box")])
        self.track([tracked])
        self.masks_of(tracked)

    def corrects(self) -> None:
        """correct: a click, positive or negative, fills the object's masks once more, and leaves those of others"""
        for index, label in ((2, 1), (4, 0), (0, 1), (2, 0)):
            objects = [self.object_in(5, [(2, "box")], clicks=1), self.object_in(5, [(2, "point")])]
            self.track(objects)
            other = self.masks_of(objects[1]).copy()
            objects = [self.object_in(5, [(2, "box")], clicks=1), self.object_in(5, [(2, "point")])]
            self.track(objects, click=Click(index, x=30, y=18, label=label))
            self.masks_of(objects[0])
            require(bool((other == self.masks_of(objects[1])).all()), "the masks of another object changed")


class VolumeChecks:
    """Of a model that takes whole volumes."""

    SPACING = (2.8, 0.7, 0.5)

    def __init__(self, model: VolumeModel) -> None:
        self.model = model

    def checks(self) -> list[Check]:
        """All of them, the simple ones first."""
        return [self.segments, self.segments_the_same_every_time, self.leaves_what_it_is_given, self.corrects]

    def mask(self, depth: int, forms: Sequence[tuple[int, str]], before: np.ndarray | None = None) -> np.ndarray:
        """A mask of a small volume; Violation where it is none."""
        prompts = VolumePrompts.of(prompt_of(min(index, depth - 1), form) for index, form in forms)
        found = self.model.segment(frames_of(depth), self.SPACING, prompts, before)
        fault = fault_of_mask(found, (depth, *SIZE))
        require(not fault, f"{forms}: segment returns {fault}")
        return found

    def segments(self) -> None:
        """segment: every form of prompt, on one slice and on two, in volumes of 5, 3 and 1 slices; empty masks too"""
        for depth in DEPTHS:
            for form in (*FORMS, *MASK_FORMS):
                self.mask(depth, [(2, form)])
            self.mask(depth, [(0, "point"), (2, "box")])

    def segments_the_same_every_time(self) -> None:
        """segment: the same prompts have the same mask every time, whatever came between"""
        for form in (*FORMS, *MASK_FORMS):
            first = self.mask(5, [(2, form)])
            self.mask(3, [(1, "points")])
            require(bool((first == self.mask(5, [(2, form)])).all()), f"{form}: another mask the second time")

    def leaves_what_it_is_given(self) -> None:
        """segment: image, prompts and the mask before are left as they are"""
        image, before = frames_of(5), np.zeros((5, *SIZE), bool)
        prompts = VolumePrompts.of([prompt_of(2, "points")])
        kept = prompts.points.copy()
        self.model.segment(image, self.SPACING, prompts, before)
        is_same = (image == frames_of(5)).all() and (prompts.points == kept).all() and not before.any()
        require(bool(is_same), "segment changed an array that it was given")

    def corrects(self) -> None:
        """segment: with the mask of the round before, and a click more"""
        before = self.mask(5, [(2, "box")])
        self.mask(5, [(2, "box"), (4, "point")], before)
