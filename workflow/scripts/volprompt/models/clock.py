"""How long the phases of a volume's segmentation take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Clock:
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
