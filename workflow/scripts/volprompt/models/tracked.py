"""Objects that memory carries through volumes, whatever the family of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import torch

from volprompt.models.features import SliceFeatures
from volprompt.prompts.schemes import ObjectPrompt


@dataclass(eq=False)
class TrackedObject:
    """An object with its prompts, the features of its volume, and its masks.

    prompts: on one slice or on several, in their order; size: height and width of a frame; masks: uint8 (slice, y,
    ceil(x / 8)) on the model's device, bits as `pack_bits` makes them, filled by the tracker.
    """

    prompts: Sequence[ObjectPrompt]
    features: SliceFeatures
    size: tuple[int, int]
    masks: torch.Tensor


def order_of_need(prompted: Sequence[Sequence[int]], depth: int, both_ways_at_once: bool) -> list[int]:
    """Slices of a volume in the order in which its objects reach them, as often as they do.

    prompted: of each object. First come the prompted slices; from the first of its own each object goes forwards, then
    in reverse, or both ways at once.
    """
    forwards = [[index for index in range(min(own) + 1, depth) if index not in own] for own in prompted]
    reverse = [range(min(own) - 1, -1, -1) for own in prompted]
    passes: list[Sequence[Iterable[int]]] = [[*forwards, *reverse]] if both_ways_at_once else [forwards, reverse]
    return [*chain(*prompted), *(index for moving in passes for index in _interleave(moving))]


def _interleave(sequences: Iterable[Iterable[int]]) -> Iterator[int]:
    """The first of each sequence, then the second of each, and so on."""
    return (each for turn in zip_longest(*sequences) for each in turn if each is not None)
