"""What SAM 2 remembers of tracked objects, as tensors on the device."""

from __future__ import annotations

from typing import Any

import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe

from volprompt.models.sam2_plan import Reads, Writes


class MemoryBank:
    """Spatial memories, bfloat16 (place, pixel, channel) as the package keeps them, and pointers (row, channel).

    A row of the pointers is a slice of an object: its number times `depth`, plus the slice.
    """

    def __init__(self, module: Any, positions: torch.Tensor, rows: int, places: int, depth: int) -> None:
        """module: a `sam2.modeling.sam2_base.SAM2Base`; positions: encoding of a memory's pixels, (1, pixel, channel);
        depth: slices of the deepest volume.
        """
        self.module = module
        self.positions = positions
        self.rows, self.places, self.depth = rows, places, depth
        self.memory = torch.empty(0)
        self.pointers = torch.empty(0)

    def store(self, writes: Writes, memory: torch.Tensor, pointer: torch.Tensor) -> None:
        """Keep the memories (n, pixel, channel) and pointers (n, channel) of some slices."""
        if not len(self.memory):
            self.memory = memory.new_empty((self.places, *memory.shape[1:]), dtype=torch.bfloat16)
            self.pointers = pointer.new_empty((self.rows * self.depth, pointer.shape[1]))
        self.memory.index_copy_(0, writes.places, memory.to(torch.bfloat16))
        self.pointers.index_copy_(0, writes.pointers, pointer.to(self.pointers.dtype))

    def recall(self, reads: Reads) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Memory tokens (n, token, channel), their position encodings, and how many of them are object pointers."""
        module = self.module
        memory = self.memory[reads.places].flatten(1, 2)
        in_time = module.maskmem_tpos_enc[reads.in_time].flatten(1)
        encoding = (self.positions + in_time[:, None]).flatten(0, 1).expand(len(memory), -1, -1)
        if not reads.pointers.shape[1]:
            return memory, encoding, 0
        pointers = self.pointers[reads.pointers]
        pointer_encoding = self._encode_pointer_distances(reads.shares, pointers)
        # A pointer is wider than a memory token: it is split.
        parts = pointers.shape[-1] // module.mem_dim
        tokens = pointers.reshape(len(memory), -1, module.mem_dim)
        pointer_encoding = pointer_encoding.repeat_interleave(parts, dim=1)
        return torch.cat([memory, tokens], dim=1), torch.cat([encoding, pointer_encoding], dim=1), tokens.shape[1]

    def _encode_pointer_distances(self, shares: torch.Tensor, pointers: torch.Tensor) -> torch.Tensor:
        """How far away each pointer is, encoded: (n, pointer, channel)."""
        module = self.module
        if not module.add_tpos_enc_to_obj_ptrs:
            return pointers.new_zeros((*pointers.shape[:2], module.mem_dim))
        width = module.hidden_dim if module.proj_tpos_enc_in_obj_ptrs else module.mem_dim
        return module.obj_ptr_tpos_proj(get_1d_sine_pe(shares, dim=width))
