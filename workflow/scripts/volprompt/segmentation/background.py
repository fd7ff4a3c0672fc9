"""Work beside the main work: the next item is loaded ahead, finished ones are stored behind, both bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def load_ahead(items: Iterable[Item], load: Callable[[Item], Loaded]) -> Iterator[tuple[Item, Loaded]]:
    """Yield each item with what `load` makes of it, while the next one is loaded in a thread.

    An error of `load` is raised when its item's turn comes.
    """
    pool = ThreadPoolExecutor(1, "load")
    try:
        waiting: deque[tuple[Item, Future[Loaded]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) == 2:
                first, future = waiting.popleft()
                yield first, future.result()
        for item, future in waiting:
            yield item, future.result()
    finally:
        # Nothing is waited for: where a generator that was left is collected while another thread starts, that would
        # be for ever.
        pool.shutdown(wait=False, cancel_futures=True)


class StoreBehind(Generic[Item]):
    """Stores items in threads, at most `limit` of them waiting; results come back in the order of the items."""

    def __init__(
        self, store: Callable[[Item], Loaded], done: Callable[[Item, Loaded], None], limit: int, threads: int
    ) -> None:
        """done: called in the caller's thread with each item and what `store` returned."""
        self._store, self._done, self._limit = store, done, limit
        self._pool = ThreadPoolExecutor(threads, "store")
        self._waiting: deque[tuple[Item, Future]] = deque()

    def __enter__(self) -> StoreBehind[Item]:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            while self._waiting:
                self._finish_first()
        self._pool.shutdown(cancel_futures=kind is not None)

    def add(self, item: Item) -> None:
        """Store `item`; waits while too many are waiting. Raises the error of an earlier item's `store`."""
        while self._waiting and (len(self._waiting) >= self._limit or self._waiting[0][1].done()):
            self._finish_first()
        self._waiting.append((item, self._pool.submit(self._store, item)))

    def _finish_first(self) -> None:
        item, future = self._waiting.popleft()
        self._done(item, future.result())
