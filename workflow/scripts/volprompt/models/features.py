"""The features of a volume's slices: encoded once, in batches, and kept only as long as something will use them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby

import torch


class SliceFeatures:
    """Features of one volume, in the order in which they will be needed.

    A slice is encoded with those that follow it in `order` when it is first required, and forgotten after as many uses
    as `order` names it: a prompt that travels away from its slice leaves nothing behind. Where objects set out from
    slices far apart, those between wait for the second one; beyond `capacity` they are forgotten and encoded again.
    Features that are `lasting` stay after their uses, since more can be announced with `expect`.
    """

    def __init__(
        self,
        encode: Callable[[list[int]], list[torch.Tensor]],
        order: Iterable[int],
        depth: int,
        batch_size: int,
        capacity: int,
        lasting: bool = False,
    ) -> None:
        """encode: slices to feature levels (n, channels, height, width); capacity: slices that `make_room` leaves."""
        self.depth = depth
        self._encode = encode
        self._batch_size = batch_size
        self._capacity = capacity
        self._lasting = lasting
        self._turns: dict[int, list[int]] = {}  # when each slice will be used
        self._announced = 0
        self._pending: list[int] = []  # first needed, first encoded
        self._kept: dict[int, list[torch.Tensor]] = {}
        self.expect(order)

    @property
    def pending(self) -> list[int]:
        """Slices that are not yet encoded, the next one first."""
        return self._pending

    def expect(self, order: Iterable[int]) -> None:
        """Announce further uses, after those that are already known."""
        order = list(order)
        for turn, index in enumerate(order, self._announced):
            self._turns.setdefault(index, []).append(turn)
        self._announced += len(order)
        there = {*self._kept, *self._pending}
        self._pending += [index for index in dict.fromkeys(order) if index not in there]

    def let_go(self) -> None:
        """Forget slices that have no known use: no further ones will be announced."""
        self._lasting = False
        for index in [index for index in self._kept if not self._turns[index]]:
            del self._kept[index]

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

    def forgo(self, slices: Iterable[int]) -> None:
        """Take back one use of each of these slices; what nothing else will use is neither encoded nor kept."""
        for index in slices:
            del self._turns[index][:1]
            if not self._turns[index]:
                if index in self._pending:
                    self._pending.remove(index)
                if not self._lasting:
                    self._kept.pop(index, None)

    def use(self, index: int, count: int = 1) -> list[torch.Tensor]:
        """The levels of a slice, (1, channels, height, width), for its next `count` uses."""
        return self._take(index, slice(count))

    def use_last(self, index: int) -> list[torch.Tensor]:
        """The same for the last of its uses, ahead of the others."""
        return self._take(index, slice(-1, None))

    def _take(self, index: int, turns: slice) -> list[torch.Tensor]:
        if index not in self._kept:
            raise KeyError(f"slice {index} is used without having been announced, or more often than it was")
        levels = self._kept[index]
        del self._turns[index][turns]
        if not self._turns[index] and not self._lasting:
            del self._kept[index]
        return levels

    @property
    def unused(self) -> list[int]:
        """Slices with announced uses that have not been made."""
        return [index for index, turns in self._turns.items() if turns]

    @property
    def crowded(self) -> bool:
        """Whether more slices are kept than `make_room` leaves."""
        return len(self._kept) > self._capacity

    def make_room(self, needed: Collection[int]) -> None:
        """Forget what will be needed last, but none of `needed`, until `capacity` slices are left."""
        by_need = sorted((index for index in self._kept if index not in needed), key=self._next_turn, reverse=True)
        forgotten = by_need[: max(0, len(self._kept) - self._capacity)]
        for index in forgotten:
            del self._kept[index]
        needed_again = [index for index in forgotten if self._turns[index]]
        self._pending = sorted([*self._pending, *needed_again], key=self._next_turn)

    def _next_turn(self, index: int) -> float:
        return self._turns[index][0] if self._turns[index] else math.inf


def gather(wanted: Sequence[tuple[SliceFeatures, int]]) -> list[torch.Tensor]:
    """The levels of a batch of slices of any volumes, (n, channels, height, width); equal neighbours are not copied."""
    uses = Counter(wanted)
    found = {(features, index): features.use(index, count) for (features, index), count in uses.items()}
    if len(found) == 1:
        (levels,) = found.values()
        return [level.expand(len(wanted), -1, -1, -1) for level in levels]
    return [torch.cat(each) for each in zip(*(found[key] for key in wanted), strict=True)]


def equal_neighbours(wanted: Sequence[tuple[SliceFeatures, int]]) -> int:
    """Into how many equal slices, one behind the other, a batch can be divided throughout."""
    return math.gcd(*(len(list(same)) for _, same in groupby(wanted)))
