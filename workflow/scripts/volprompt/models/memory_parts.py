"""What tracking asks of a model with SAM 2's kind of memory, whatever package it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from volprompt.models.kernels import AttentionSettings
from volprompt.models.memory_attention import MemoryAttention
from volprompt.models.memory_plan import MemoryRules


class Heads(NamedTuple):
    """What the heads of a model make of some slices.

    low_res: mask logits of the decoder's size (n, 1, y, x); high_res: those of the size of the model's image;
    iou: predicted IoU (n, 1); pointer: object pointer (n, channel); presence: object score logit (n, 1).
    """

    low_res: torch.Tensor
    high_res: torch.Tensor
    iou: torch.Tensor
    pointer: torch.Tensor
    presence: torch.Tensor


class MemoryParts(Protocol):
    """The parts of a model that tracking calls. Levels of features are (n, channel, y, x), the coarsest one last."""

    rules: MemoryRules
    attention: MemoryAttention
    image_size: int  # of the model's square image, in pixels
    positions: torch.Tensor  # encoding of the coarsest level's pixels, (1, pixel, channel)
    memory_positions: torch.Tensor  # encoding of a memory's tokens, (1, token, channel)
    positions_in_time: torch.Tensor  # encoding of memories by their distance in slices, (memory, channel)
    remembers_shown: bool  # prompted slices enter memory by their masks of the decoder's size, enlarged
    no_memory: torch.Tensor  # what a slice without memory is given instead, (1, channel, 1, 1)

    def __init__(self, module: Any, settings: AttentionSettings) -> None:
        """Take the parts out of a package's model, whose weights are loaded."""
        ...

    def decode(
        self,
        coarse: torch.Tensor,
        fine: Sequence[torch.Tensor],
        points: Mapping[str, torch.Tensor] | None,
        logits: torch.Tensor | None,
        first: bool,
    ) -> Heads:
        """Decode slices with memory in their coarsest level.

        points: see `point_inputs`; logits: of an earlier decoding, (n, 1, y, x); first: whether the slices are prompted
        for the first time. How many masks are decoded, of which the best is taken, follows from points and `first`.
        """
        ...

    def take_mask(self, coarse: torch.Tensor, fine: Sequence[torch.Tensor], masks: torch.Tensor) -> Heads:
        """What masks that are prompts, see `mask_inputs`, are as results of slices without memory."""
        ...

    def encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """Memories (n, token, channel), of the type in which they are kept, of mask logits as in `Heads`."""
        ...

    def encode_distances(self, shares: torch.Tensor) -> torch.Tensor | None:
        """Encode how far away object pointers are, shares (n, pointer): (n, pointer, channel); None for nothing."""
        ...
