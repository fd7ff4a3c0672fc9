"""Objects that are carried through volumes, by memory or by boxes, whatever the family of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise, zip_longest
from typing import NamedTuple

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
    masks: uint8 (slice, y, ceil(x / 8)) on the model's device, bits as `pack_bits` makes them, filled on the way.
    confidence: float32 (2, slice) on the model's device, predicted IoU and object score logit, filled on the way.
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


class Ways(NamedTuple):
    """The slices on an object's way from a slice, in both directions."""

    forwards: Sequence[int]
    reverse: Sequence[int]


def ways_through(start: int, passed: Sequence[int], depth: int) -> Ways:
    """The ways of memory: from the slice that it sets out from to both ends, passing by the prompted slices."""
    return Ways(
        [index for index in range(start + 1, depth) if index not in passed],
        [index for index in range(start - 1, -1, -1) if index not in passed],
    )


def ways_apart(prompted: Sequence[int], depth: int) -> dict[int, Ways]:
    """The ways of boxes: from each prompted slice through those that it is the nearest to, of two equally near ones the
    first."""
    places = sorted(prompted)
    ends = [*((first + second) // 2 + 1 for first, second in pairwise(places)), depth]
    return {
        place: Ways(range(place + 1, end), range(place - 1, begin - 1, -1))
        for place, begin, end in zip(places, [0, *ends], ends, strict=False)
    }


def order_of_need(
    prompted: Sequence[Sequence[int]],
    depth: int,
    head_start: int,
    boxed: Sequence[Sequence[int]] = (),
    boxes_wait: bool = True,
) -> list[int]:
    """Slices of a volume in the order in which its objects reach them at most, as often as they do.

    prompted: of each object that memory carries; head_start: of its forward pass, see `wait_for_forwards`; boxed: of
    each that boxes carry; boxes_wait: whether their reverse passes wait for the end of all forward ones. First come the
    prompted slices.
    """
    ways = [ways_through(min(own), own, depth) for own in prompted]
    boxes = [way for own in boxed for way in ways_apart(own, depth).values()]
    longest = max((len(way.forwards) for way in boxes), default=0)
    waits = [*(wait_for_forwards(head_start, len(way.forwards)) for way in ways), *[longest * boxes_wait] * len(boxes)]
    return [*chain(*prompted, *boxed), *_order_on_the_way([*ways, *boxes], waits)]


def order_of_round(clicked: Sequence[tuple[TrackedObject, Click]], depth: int, head_start: int) -> list[int]:
    """The same for a round of corrections: first come the slices that are clicked on.

    clicked: objects of one volume with their clicks, before these are added to the prompts.
    """
    ways = [ways_through(each.start, [*each.prompted, click.slice], depth) for each, click in clicked]
    waits = [wait_for_forwards(head_start, len(way.forwards)) for way in ways]
    return [*(click.slice for _, click in clicked), *_order_on_the_way(ways, waits)]


def wait_for_forwards(head_start: int, forwards: int) -> int:
    """Steps for which an object's reverse pass waits: the head start of its forward pass, of so many steps, or its end.

    The reverse pass reads what the forward pass remembers close to the start. Once that is there, and the forward pass
    reads it no more, both move on side by side, which is a batch of twice as many.
    """
    return min(head_start, forwards)


def _order_on_the_way(ways: Sequence[Ways], waits: Sequence[int]) -> Iterator[int]:
    """The first slice of each way forwards and in reverse, as far as it has set out, then the second, and so on."""
    reverse = [[*[None] * wait, *way.reverse] for way, wait in zip(ways, waits, strict=True)]
    turns = zip_longest(*(way.forwards for way in ways), *reverse)
    return (each for turn in turns for each in turn if each is not None)
