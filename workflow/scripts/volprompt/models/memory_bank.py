"""What a model remembers of tracked objects, as tensors on the device."""

from __future__ import annotations

import torch

from volprompt.models.memory_parts import MemoryParts
from volprompt.models.memory_plan import Reads, Writes


class MemoryBank:
    """Spatial memories (place, token, channel), of the type in which the model keeps them, and pointers (row, channel).

    A row of the pointers is a slice of an object: its number times `depth`, plus the slice.
    """

    def __init__(self, parts: MemoryParts, rows: int, places: int, depth: int) -> None:
        """depth: slices of the deepest volume."""
        self.parts = parts
        self.rows, self.places, self.depth = rows, places, depth
        self.memory = torch.empty(0)
        self.pointers = torch.empty(0)

    def store(self, writes: Writes, memory: torch.Tensor, pointer: torch.Tensor) -> None:
        """Keep the memories (n, token, channel) and pointers (n, channel) of some slices."""
        if not len(self.memory):
            self.memory = memory.new_empty((self.places, *memory.shape[1:]))
            self.pointers = pointer.new_empty((self.rows * self.depth, pointer.shape[1]))
        self.memory.index_copy_(0, writes.places, memory)
        self.pointers.index_copy_(0, writes.pointers, pointer.to(self.pointers.dtype))

    def recall(self, reads: Reads) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Memory tokens (n, token, channel), their position encodings, and how many of them are object pointers."""
        parts = self.parts
        memory = self.memory[reads.places].flatten(1, 2)
        in_time = parts.positions_in_time[reads.in_time]
        encoding = (parts.memory_positions + in_time[:, None]).flatten(0, 1).expand(len(memory), -1, -1)
        if not reads.pointers.shape[1]:
            return memory, encoding, 0
        pointers = self.pointers[reads.pointers]
        distances = parts.encode_distances(reads.shares)
        # A pointer is wider than a memory token: it is split.
        width = memory.shape[-1]
        tokens = pointers.reshape(len(memory), -1, width)
        if distances is None:
            distances = torch.zeros_like(tokens)
        else:
            distances = distances.repeat_interleave(pointers.shape[-1] // width, dim=1)
        return torch.cat([memory, tokens], dim=1), torch.cat([encoding, distances], dim=1), tokens.shape[1]
