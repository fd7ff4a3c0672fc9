"""Objects that memory carries through volumes, whatever the family of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import torch

from volprompt.models.features import SliceFeatures
from volprompt.prompts.corrections import Click, click_alone, with_click
from volprompt.prompts.schemes import ObjectPrompt


@dataclass(eq=False)
class TrackedObject:
    """An object with its prompts, the features of its volume, and its masks.

    prompts: on one slice or on several, in their order.
    features: of the volume's slices.
    size: height and width of a frame.
    masks: uint8 (slice, y, ceil(x / 8)) on the model's device, bits as `pack_bits` makes them, filled by the tracker.
    confidence: float32 (2, slice) on the model's device, predicted IoU and object score logit, filled by the tracker.
    clicks: correction clicks that can follow at most.
    start: the first slice that was prompted before any correction; every pass sets out from it.
    """

    prompts: list[ObjectPrompt]
    features: SliceFeatures
    size: tuple[int, int]
    masks: torch.Tensor
    confidence: torch.Tensor
    clicks: int = 0
    start: int = field(init=False)

    def __post_init__(self) -> None:
        self.start = min(prompt.slice for prompt in self.prompts)

    @property
    def prompted(self) -> list[int]:
        """The slices with prompts, in the order in which they were prompted."""
        return [prompt.slice for prompt in self.prompts]

    def add_click(self, click: Click) -> ObjectPrompt:
        """Add a correction click to the prompts of its slice, and return all of that slice's prompts."""
        for place, prompt in enumerate(self.prompts):
            if prompt.slice == click.slice:
                self.prompts[place] = with_click(prompt, click)
                return self.prompts[place]
        self.prompts.append(click_alone(self.prompts[0].structure, click))
        return self.prompts[-1]


def order_of_need(prompted: Sequence[Sequence[int]], depth: int, both_ways_at_once: bool) -> list[int]:
    """Slices of a volume in the order in which its objects reach them, as often as they do.

    prompted: of each object. First come the prompted slices; from the first of its own each object goes forwards, then
    in reverse, or both ways at once.
    """
    return [*chain(*prompted), *_order_on_the_way([(min(own), own) for own in prompted], depth, both_ways_at_once)]


def order_of_round(clicked: Sequence[tuple[TrackedObject, Click]], depth: int, both_ways_at_once: bool) -> list[int]:
    """The same for a round of corrections: first come the slices that are clicked on.

    clicked: objects of one volume with their clicks, before these are added to the prompts.
    """
    ways = [(each.start, [*each.prompted, click.slice]) for each, click in clicked]
    return [*(click.slice for _, click in clicked), *_order_on_the_way(ways, depth, both_ways_at_once)]


def _order_on_the_way(ways: Sequence[tuple[int, Sequence[int]]], depth: int, both_ways_at_once: bool) -> Iterator[int]:
    """ways: of each object the slice that it sets out from, and the prompted slices, which it passes by."""
    forwards = [[index for index in range(start + 1, depth) if index not in own] for start, own in ways]
    reverse = [[index for index in range(start - 1, -1, -1) if index not in own] for start, own in ways]
    passes = [[*forwards, *reverse]] if both_ways_at_once else [forwards, reverse]
    return (index for moving in passes for index in _interleave(moving))


def _interleave(sequences: Iterable[Iterable[int]]) -> Iterator[int]:
    """The first of each sequence, then the second of each, and so on."""
    return (each for turn in zip_longest(*sequences) for each in turn if each is not None)
