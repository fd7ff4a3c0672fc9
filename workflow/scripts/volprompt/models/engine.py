"""Frames and prompts of some volumes in, masks out: each slice is encoded once and serves every scheme.

Slices are encoded in the order in which they are needed: from the prompted slices of the video schemes outwards, then
those that only image schemes ask for. All tracked objects move in lockstep, those of several volumes too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from volprompt.models.base import PromptableModel, batches_of_one_form, pack_bits
from volprompt.models.features import SliceFeatures
from volprompt.models.tracked import TrackedObject, order_of_need
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import Scheme

Result = TypeVar("Result")
# Prompts per batch of the mask decoder, for image schemes.
DECODER_BATCH = 16
# Slices whose features are kept at most, of all volumes that are tracked together, and of each of them at least. A
# slice takes 8 MB in bfloat16 and 17 in float32 with images of 1024 pixels.
FEATURES_KEPT, FEATURES_KEPT_EACH = 256, 64


@dataclass
class LoadedVolume:
    """A volume to segment.

    frames: as the model's `prepare` returns them, uint8 (slice, y, x); size: height and width of an original frame;
    prompts: per scheme.
    """

    name: str
    frames: np.ndarray
    size: tuple[int, int]
    prompts: Mapping[str, Sequence[ObjectPrompt]]


@dataclass
class Segmented:
    """What came of a volume.

    masks: per scheme and structure the bits of a mask, uint8 (slice, y, ceil(x / 8)), see `masks.unpack_bits`;
    seconds_encode: shared by all schemes; seconds_prompt: per scheme, decoding or tracking.
    """

    masks: dict[str, dict[str, np.ndarray]]
    seconds_encode: float
    seconds_prompt: dict[str, float]


def segment_volumes(
    model: PromptableModel,
    volumes: Sequence[LoadedVolume],
    schemes: Mapping[str, Scheme],
    batch_size: int,
    reset_between_directions: bool = False,
    progress: Callable[[str, int, int], None] = lambda volume, done, slices: None,
    hole_area: int = 0,
    video_resize: Literal["shared", "bicubic"] = "shared",
) -> list[Segmented]:
    """Segment volumes under each scheme that they have prompts for.

    batch_size: slices per batch of the image encoder; progress: called with a volume's name, the slices encoded so far,
    and how many there are to encode; hole_area: pixels of the largest hole that video schemes fill, see
    `holes.fill_holes`; video_resize: `bicubic` encodes slices a second time for video schemes, resized as the package's
    video loader does. Structures without a prompt on any slice are absent from the masks.
    """
    with model.inference():
        clock = _Clock(model.device)
        kept = max(FEATURES_KEPT // len(volumes), FEATURES_KEPT_EACH)
        works = [
            _VolumeWork(
                model=model,
                volume=volume,
                schemes=schemes,
                clock=clock,
                progress=progress,
                batch_size=batch_size,
                kept=kept,
                reset_between_directions=reset_between_directions,
                video_resize=video_resize,
            )
            for volume in volumes
        ]
        tracked = [each for work in works for each in work.tracked]
        if tracked:
            steps = model.tracker(hole_area).track(tracked, reset_between_directions)
            for needed in clock.timed_steps(("track",), steps):
                for work in works:
                    work.encode(index for features, index in needed if features is work.video_features)
        for work in works:
            work.finish()
        steps_of_all = sum(each.features.depth for each in tracked)
        return [work.result(clock.seconds(("track",)) / max(1, steps_of_all)) for work in works]


class _VolumeWork:
    """A volume on its way through the engine."""

    def __init__(
        self,
        *,
        model: PromptableModel,
        volume: LoadedVolume,
        schemes: Mapping[str, Scheme],
        clock: _Clock,
        progress: Callable[[str, int, int], None],
        batch_size: int,
        kept: int,
        reset_between_directions: bool,
        video_resize: Literal["shared", "bicubic"],
    ) -> None:
        self.model, self.volume, self.schemes, self.clock, self.progress = model, volume, schemes, clock, progress
        depth = len(volume.frames)
        shape = (depth, volume.size[0], -(-volume.size[1] // 8))
        self.masks = {
            name: {
                structure: torch.zeros(shape, dtype=torch.uint8, device=model.device)
                for structure in dict.fromkeys(prompt.structure for prompt in given)
            }
            for name, given in volume.prompts.items()
        }
        self.video_schemes = [name for name in volume.prompts if schemes[name].predictor == "video"]
        self.decoded: dict[int, list[tuple[str, ObjectPrompt]]] = {}
        for name in volume.prompts:
            if name not in self.video_schemes:
                for prompt in volume.prompts[name]:
                    self.decoded.setdefault(prompt.slice, []).append((name, prompt))
        moving = {
            (name, structure): [prompt for prompt in volume.prompts[name] if prompt.structure == structure]
            for name in self.video_schemes
            for structure in self.masks[name]
        }
        prompted = [[prompt.slice for prompt in given] for given in moving.values()]
        order = order_of_need(prompted, depth, reset_between_directions)
        if video_resize == "bicubic":
            # Features for tracking, and features for image schemes.
            self.video_features = SliceFeatures(self._encode_for_video, order, depth, batch_size, kept)
            self.image_features = SliceFeatures(self._encode, list(self.decoded), depth, batch_size, kept)
        else:
            self.video_features = self.image_features = SliceFeatures(
                self._encode, [*order, *self.decoded], depth, batch_size, kept
            )
        self.slices = self._slices_to_encode()
        self.waiting: list[int] = []
        self.tracked = [
            TrackedObject(given, self.video_features, volume.size, self.masks[name][structure])
            for (name, structure), given in moving.items()
        ]

    def _slices_to_encode(self) -> int:
        """Slices that are still to be encoded, counted as often as they are."""
        return sum(len(features.pending) for features in {self.video_features, self.image_features})

    def encode(self, slices: Iterable[int]) -> None:
        """Encode slices for tracking unless they are there, and decode the image schemes' prompts on them."""
        slices = list(slices)
        self._require(self.video_features, slices)
        if self.video_features.crowded:
            self._decode()
            self.video_features.make_room(slices)

    def _require(self, features: SliceFeatures, slices: Iterable[int]) -> None:
        """Encode slices unless they are there, and decode the image schemes' prompts on them batch by batch."""
        for index in slices:
            features.require([index])
            if sum(len(self.decoded[index]) for index in self.waiting) >= DECODER_BATCH:
                self._decode()

    def finish(self) -> None:
        """Encode the slices that only image schemes need, and decode what is left."""
        while self.image_features.pending:
            self._require(self.image_features, self.image_features.pending[:1])
        self._decode()

    def result(self, seconds_per_step: float) -> Segmented:
        """Fetch the masks from the device; seconds_per_step: of tracking one object over one slice."""
        masks = {
            name: {structure: bits.cpu().numpy() for structure, bits in of_scheme.items()}
            for name, of_scheme in self.masks.items()
        }
        name = self.volume.name
        seconds = {scheme: self.clock.seconds(("decode", name, scheme)) for scheme in masks}
        for scheme in self.video_schemes:
            seconds[scheme] = seconds_per_step * self.video_features.depth * len(self.masks[scheme])
        return Segmented(masks, self.clock.seconds(("encode", name)), seconds)

    def _encode(self, slices: list[int]) -> list[torch.Tensor]:
        self.waiting += [index for index in slices if index in self.decoded]
        return self._encode_timed(self.model.encode, slices)

    def _encode_for_video(self, slices: list[int]) -> list[torch.Tensor]:
        return self._encode_timed(self.model.encode_for_video, slices)

    def _encode_timed(
        self, encode: Callable[[np.ndarray], list[torch.Tensor]], slices: list[int]
    ) -> list[torch.Tensor]:
        levels = self.clock.timed(("encode", self.volume.name), encode, self.volume.frames[slices])
        self.progress(self.volume.name, self.slices - self._slices_to_encode(), self.slices)
        return levels

    def _decode(self) -> None:
        """Decode the image schemes' prompts on the slices that wait."""
        levels = {index: self.image_features.use_last(index) for index in self.waiting}
        given: dict[str, list[ObjectPrompt]] = {}
        for index in self.waiting:
            for name, prompt in self.decoded.pop(index):
                given.setdefault(name, []).append(prompt)
        self.waiting.clear()
        for name, prompts in given.items():
            self.clock.timed(("decode", self.volume.name, name), self._decode_scheme, name, prompts, levels)

    def _decode_scheme(
        self, name: str, prompts: Sequence[ObjectPrompt], levels: Mapping[int, list[torch.Tensor]]
    ) -> None:
        for batch in batches_of_one_form(prompts, lambda prompt: prompt):
            rows = [torch.cat(level) for level in zip(*(levels[prompt.slice] for prompt in batch), strict=True)]
            masks = self.model.decode(rows, batch, self.volume.size, self.schemes[name].multimask)
            for prompt, bits in zip(batch, pack_bits(masks), strict=True):
                self.masks[name][prompt.structure][prompt.slice] = bits


class _Clock:
    """Seconds by key; on a GPU those between two events in its queue, so that nothing waits for being timed."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.spans: dict[tuple[str, ...], list[tuple[Any, Any]]] = {}

    def timed(self, key: tuple[str, ...], work: Callable[..., Result], *arguments: Any) -> Result:
        """Do `work` with its arguments, and add the time that it takes to `key`."""
        begin = self._now()
        result = work(*arguments)
        self.spans.setdefault(key, []).append((begin, self._now()))
        return result

    def timed_steps(self, key: tuple[str, ...], steps: Iterator[Result]) -> Iterator[Result]:
        """The steps, none of which is None, with the time that making each of them takes added to `key`."""
        while (step := self.timed(key, next, steps, None)) is not None:
            yield step

    def seconds(self, key: tuple[str, ...]) -> float:
        """The sum of a key's spans so far."""
        if self.on_gpu:
            torch.cuda.synchronize()
            return sum(begin.elapsed_time(end) / 1000 for begin, end in self.spans.get(key, []))
        return sum(end - begin for begin, end in self.spans.get(key, []))

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
