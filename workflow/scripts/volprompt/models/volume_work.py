"""A volume on its way through the engine: what it needs encoded, what is decoded, and its objects to be carried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from volprompt.models.base import Decoded, PromptableModel, batches_of_one_form, pack_bits
from volprompt.models.clock import Clock
from volprompt.models.features import SliceFeatures
from volprompt.models.propagation import PropagatedObject
from volprompt.models.rounds import CorrectionReference, Rounds
from volprompt.models.segmented import Confidence, LoadedVolume, Segmented
from volprompt.models.tracked import TrackedObject, order_of_need, order_of_round
from volprompt.prompts.corrections import Click, with_click
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import Scheme

# Prompts per batch of the mask decoder, for schemes that prompt every slice.
DECODER_BATCH = 16


# What is called as the work goes on: with a volume (of several that are corrected together, all names), how many steps
# are done, of how many, and what the steps are.
Progress = Callable[[str, int, int, str], None]


class Pace(NamedTuple):
    """How long it takes to carry objects.

    per_step: of each round, seconds of tracking one object over one slice; per_box: seconds of decoding one object on
    one slice where boxes carry it.
    """

    per_step: Sequence[float]
    per_box: float


class VolumeWork:
    """A volume on its way through the engine."""

    def __init__(
        self,
        *,
        model: PromptableModel,
        volume: LoadedVolume,
        schemes: Mapping[str, Scheme],
        clock: Clock,
        progress: Progress,
        batch_size: int,
        kept: int,
        reset_between_directions: bool,
        video_resize: Literal["shared", "bicubic"],
    ) -> None:
        self.model, self.volume, self.schemes, self.clock, self.progress = model, volume, schemes, clock, progress
        depth = len(volume.frames)
        shape = (depth, volume.size[0], -(-volume.size[1] // 8))
        structures = {
            name: list(dict.fromkeys(prompt.structure for prompt in given)) for name, given in volume.prompts.items()
        }
        self.rounds = {
            name: Rounds(structures[name], self._clicks(name), shape, model.device) for name in volume.prompts
        }
        self.masks = {name: rounds.current for name, rounds in self.rounds.items()}
        self.confidence = {
            name: {each: torch.full((2, depth), torch.nan, device=model.device) for each in structures[name]}
            for name in volume.prompts
        }
        self.video_schemes = [name for name in volume.prompts if schemes[name].predictor == "video"]
        self.propagating_schemes = [name for name in volume.prompts if schemes[name].propagate]
        self.decoded: dict[int, list[tuple[str, ObjectPrompt]]] = {}
        for name in volume.prompts:
            if schemes[name].prompts_every_slice:
                for prompt in volume.prompts[name]:
                    self.decoded.setdefault(prompt.slice, []).append((name, prompt))
        moving, boxed = self._objects_of(self.video_schemes), self._objects_of(self.propagating_schemes)
        prompted, prompted_boxed = (
            [[prompt.slice for prompt in given] for given in objects.values()] for objects in (moving, boxed)
        )
        self.head_start = 0 if reset_between_directions else model.head_start
        boxes_wait = not reset_between_directions
        corrected = any(self._clicks(name) for name in self.video_schemes)
        if video_resize == "bicubic":
            # Features for tracking, and features for image schemes.
            order = order_of_need(prompted, depth, self.head_start)
            self.video_features = SliceFeatures(self._encode_for_video, order, depth, batch_size, kept, corrected)
            order = order_of_need([], depth, 0, prompted_boxed, boxes_wait)
            self.image_features = SliceFeatures(self._encode, [*order, *self.decoded], depth, batch_size, kept)
        else:
            order = order_of_need(prompted, depth, self.head_start, prompted_boxed, boxes_wait)
            self.video_features = self.image_features = SliceFeatures(
                self._encode, [*order, *self.decoded], depth, batch_size, kept, corrected
            )
        self.slices = self._slices_to_encode()
        self.waiting: list[int] = []
        self.tracked = {
            TrackedObject(
                prompts=given,
                features=self.video_features,
                size=volume.size,
                masks=self.masks[name][structure],
                confidence=self.confidence[name][structure],
                clicks=self._clicks(name),
            ): (name, structure)
            for (name, structure), given in moving.items()
        }
        self.unfinished = [each for each in self.tracked if each.clicks]
        self.propagated = {
            PropagatedObject(
                prompts=given,
                features=self.image_features,
                size=volume.size,
                masks=self.masks[name][structure],
                confidence=self.confidence[name][structure],
                multimask=schemes[name].multimask,
                widening=self._in_pixels(schemes[name].widening),
            ): name
            for (name, structure), given in boxed.items()
        }

    def _objects_of(self, names: Iterable[str]) -> dict[tuple[str, str], list[ObjectPrompt]]:
        """The prompts of each object, by scheme and structure."""
        return {
            (name, structure): [prompt for prompt in self.volume.prompts[name] if prompt.structure == structure]
            for name in names
            for structure in self.masks[name]
        }

    def _in_pixels(self, distance_mm: float) -> tuple[float, float]:
        """A distance as pixels along x and y."""
        _, along_y, along_x = self.volume.spacing
        return distance_mm / along_x, distance_mm / along_y

    def _clicks(self, scheme: str) -> int:
        """Rounds of corrections of a scheme at most."""
        corrections = self.schemes[scheme].corrections
        return corrections.clicks if corrections else 0

    def _slices_to_encode(self) -> int:
        """Slices that are still to be encoded, counted as often as they are."""
        return sum(len(features.pending) for features in {self.video_features, self.image_features})

    def encode(self, needed: Iterable[tuple[SliceFeatures, int]]) -> None:
        """Encode what a step needs of this volume unless it is there, and decode the prompts that wait for a slice."""
        needed = list(needed)
        for features in dict.fromkeys([self.video_features, self.image_features]):
            slices = [index for each, index in needed if each is features]
            self._require(features, slices)
            if features.crowded:
                self._decode()
                features.make_room(slices)

    def _require(self, features: SliceFeatures, slices: Iterable[int]) -> None:
        """Encode slices unless they are there, and decode the prompts that wait for them batch by batch."""
        for index in slices:
            features.require([index])
            if sum(len(self.decoded[index]) for index in self.waiting) >= DECODER_BATCH:
                self._decode()

    def next_clicks(self, number: int) -> dict[TrackedObject, Click]:
        """Take the masks as those of the round before, and make the clicks of round `number`.

        An object without error, or with no click left, is finished.
        """
        clicks = {}
        for each in self.unfinished:
            name, structure = self.tracked[each]
            self.rounds[name].end(number - 1, structure)
            click = self._click_on(each) if number <= each.clicks else None
            if click is not None:
                self.rounds[name].add(number, structure, click)
                clicks[each] = click
        self.unfinished = list(clicks)
        self.video_features.expect(order_of_round(list(clicks.items()), len(self.volume.frames), self.head_start))
        return clicks

    def _click_on(self, tracked: TrackedObject) -> Click | None:
        """The click that corrects an object; None without error."""
        name, structure = self.tracked[tracked]
        bits = tracked.masks.cpu().numpy()
        return self._reference.click_in_volume(structure, bits, self.volume.size[1], self.schemes[name].presence)

    @property
    def _reference(self) -> CorrectionReference:
        assert self.volume.reference is not None, "schemes with corrections need a reference"
        return self.volume.reference

    def finish(self) -> None:
        """Encode the slices that only schemes with prompts on every slice need, and decode what is left."""
        self.video_features.let_go()
        while self.image_features.pending:
            self._require(self.image_features, self.image_features.pending[:1])
        self._decode()

    def result(self, pace: Pace) -> Segmented:
        """Fetch the masks from the device."""
        seconds = {name: self._seconds_of_rounds(name, pace) for name in self.rounds}
        corrected = [name for name in self.rounds if self._clicks(name)]
        return Segmented(
            masks=_fetched(self.masks),
            seconds_encode=self.clock.seconds(("encode", self.volume.name)),
            seconds_prompt={name: sum(of_rounds) for name, of_rounds in seconds.items()},
            confidence={
                name: {structure: Confidence(*both) for structure, both in of_scheme.items()}
                for name, of_scheme in _fetched(self.confidence).items()
            },
            rounds={name: self.rounds[name].masks() for name in corrected},
            clicks={name: self.rounds[name].made() for name in corrected},
            seconds_rounds={name: seconds[name] for name in corrected},
        )

    def _seconds_of_rounds(self, name: str, pace: Pace) -> list[float]:
        """Seconds of a scheme's rounds, those of no round after its last click."""
        if name in self.propagating_schemes:
            return [pace.per_box * sum(each.decoded for each, scheme in self.propagated.items() if scheme == name)]
        clicks = [click.round for click in self.rounds[name].clicks]
        numbers = range(max(clicks, default=0) + 1)
        if name not in self.video_schemes:
            return [self.clock.seconds(("decode", self.volume.name, name, str(number))) for number in numbers]
        # One click is made for each object that is tracked once more.
        objects = [len(self.masks[name]), *(clicks.count(number) for number in numbers[1:])]
        return [pace.per_step[number] * self.video_features.depth * objects[number] for number in numbers]

    def _encode(self, slices: list[int]) -> list[torch.Tensor]:
        self.waiting += [index for index in slices if index in self.decoded]
        return self._encode_timed(self.model.encode, slices)

    def _encode_for_video(self, slices: list[int]) -> list[torch.Tensor]:
        return self._encode_timed(self.model.encode_for_video, slices)

    def _encode_timed(
        self, encode: Callable[[np.ndarray], list[torch.Tensor]], slices: list[int]
    ) -> list[torch.Tensor]:
        levels = self.clock.timed(("encode", self.volume.name), encode, self.volume.frames[slices])
        what = "slices encoded (corrections follow)" if self.unfinished else "slices encoded"
        self.progress(self.volume.name, self.slices - self._slices_to_encode(), self.slices, what)
        return levels

    def _decode(self) -> None:
        """Decode the prompts on the slices that wait, of schemes that prompt every slice."""
        levels = {index: self.image_features.use_last(index) for index in self.waiting}
        given: dict[str, list[ObjectPrompt]] = {}
        for index in self.waiting:
            for name, prompt in self.decoded.pop(index):
                given.setdefault(name, []).append(prompt)
        self.waiting.clear()
        for name, prompts in given.items():
            for batch in batches_of_one_form(prompts, lambda prompt: prompt, self.model.largest_batch):
                rows = [torch.cat(level) for level in zip(*(levels[prompt.slice] for prompt in batch), strict=True)]
                self._decode_in_rounds(name, batch, rows)

    def _decode_in_rounds(self, name: str, prompts: Sequence[ObjectPrompt], levels: Sequence[torch.Tensor]) -> None:
        """Decode prompts of one form, and correct their masks with a click each as long as there are errors.

        `multimask` holds for the prompts alone: with a click and the logits of the round before, one mask is decoded,
        since they say which of several masks is meant.
        """
        decoded = self._decode_round(0, name, prompts, levels, None)
        for number in range(1, self._clicks(name) + 1):
            masks = decoded.masks.cpu().numpy()
            clicks = [
                self._reference.click_on_slice(prompt.structure, prompt.slice, mask)
                for prompt, mask in zip(prompts, masks, strict=True)
            ]
            clicked = [(place, click) for place, click in enumerate(clicks) if click is not None]
            if not clicked:
                return
            for place, click in clicked:
                self.rounds[name].add(number, prompts[place].structure, click)
            prompts = [with_click(prompts[place], click) for place, click in clicked]
            places = [place for place, _ in clicked]
            levels = [level[places] for level in levels]
            decoded = self._decode_round(number, name, prompts, levels, decoded.logits[places])

    def _decode_round(
        self,
        number: int,
        name: str,
        prompts: Sequence[ObjectPrompt],
        levels: Sequence[torch.Tensor],
        logits: torch.Tensor | None,
    ) -> Decoded:
        """Decode prompts of one form in one round; logits: those of the round before, None in round 0."""
        multimask = False if number else self.schemes[name].multimask
        key = ("decode", self.volume.name, name, str(number))
        decoded = self.clock.timed(key, self.model.decode, levels, prompts, self.volume.size, multimask, logits)
        for place, (prompt, bits) in enumerate(zip(prompts, pack_bits(decoded.masks), strict=True)):
            self.rounds[name].show(number, prompt.structure, prompt.slice, bits)
            self.confidence[name][prompt.structure][:, prompt.slice] = decoded.confidence[:, place]
        return decoded


def _fetched(tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, dict[str, np.ndarray]]:
    """Tensors per scheme and structure as arrays."""
    return {name: {part: each.cpu().numpy() for part, each in parts.items()} for name, parts in tensors.items()}
