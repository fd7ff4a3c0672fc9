"""The features of a volume's slices: encoded once, in batches, and kept only as long as something will use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch


class SliceFeatures:
    """Features of one volume, in the order in which they will be needed.

    A slice is encoded with those that follow it in `order` when it is first required, and forgotten after as many uses
    as `order` names it. So memory is bounded by what is in use, not by the depth of the volume: a prompt that travels
    away from its slice leaves nothing behind.
    """

    def __init__(
        self, encode: Callable[[list[int]], list[torch.Tensor]], order: Iterable[int], depth: int, batch_size: int
    ) -> None:
        """encode: slices to feature levels (n, channels, height, width)."""
        self.depth = depth
        self._encode = encode
        self._batch_size = batch_size
        self._uses = Counter(order)
        self._pending = list(self._uses)  # first needed, first encoded
        self._kept: dict[int, list[torch.Tensor]] = {}

    @property
    def pending(self) -> list[int]:
        """Slices that are not yet encoded, the next one first."""
        return self._pending

    def require(self, slices: Iterable[int]) -> None:
        """Encode these slices unless they are there, and with each what fills its batch."""
        for index in slices:
            if index in self._kept:
                continue
            place = self._pending.index(index)
            batch = self._pending[place : place + self._batch_size]
            del self._pending[place : place + self._batch_size]
            levels = self._encode(batch)
            for row, each in enumerate(batch):
                self._kept[each] = [level[row : row + 1] for level in levels]

    def use(self, index: int, count: int = 1) -> list[torch.Tensor]:
        """The levels of a slice, (1, channels, height, width), for `count` of its uses."""
        levels = self._kept[index]
        self._uses[index] -= count
        if self._uses[index] <= 0:
            del self._kept[index]
        return levels


def gather(wanted: Sequence[tuple[SliceFeatures, int]]) -> list[torch.Tensor]:
    """The levels of a batch of slices of any volumes, (n, channels, height, width); equal neighbours are not copied."""
    uses = Counter(wanted)
    found = {(features, index): features.use(index, count) for (features, index), count in uses.items()}
    if len(found) == 1:
        (levels,) = found.values()
        return [level.expand(len(wanted), -1, -1, -1) for level in levels]
    return [torch.cat(each) for each in zip(*(found[key] for key in wanted), strict=True)]
