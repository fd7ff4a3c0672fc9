"""What models with SAM 2's kind of memory share, whatever package they come from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.nn import functional

from volprompt.models.base import Decoded, PromptableModel
from volprompt.models.devices import Device
from volprompt.models.memory_parts import MemoryParts
from volprompt.models.memory_tracking import MemoryTracker
from volprompt.models.sam2_inputs import LARGEST_LOGIT


class MemoryModel(PromptableModel):
    """A model that carries masks through a volume by memory; `tracking` are the parts that do it."""

    parts_class: ClassVar[type[MemoryParts]]
    tracking: MemoryParts

    def __init__(self, module: Any, device: Device) -> None:
        super().__init__(module, device)
        with torch.no_grad():
            self.tracking = type(self).parts_class(module, self.attention_settings)
        self.speed_up(self.module, self.tracking.attention)
        self.head_start = self.tracking.rules.head_start

    @property
    def kernels(self) -> dict[str, str]:
        """Of the attention to memory; the encoder and the decoder are the package's."""
        return self.tracking.attention.kernels

    @property
    def image_size(self) -> int:
        """1008 for the published model of SAM 3, 1024 for all others."""
        return self.tracking.image_size

    @property
    def level_type(self) -> torch.dtype:
        """The type of feature levels: the packages leave the coarsest one in float32."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def tracker(self, hole_area: int = 0) -> MemoryTracker:
        """A tracker for some volumes."""
        return MemoryTracker(self.tracking, hole_area, self.largest_batch)


def decoded_of(low_res: torch.Tensor, iou: torch.Tensor, presence: torch.Tensor, size: tuple[int, int]) -> Decoded:
    """What a decoder's mask logits (n, 1, y, x), predicted IoU (n, 1) and object score logits (n, 1) are on a frame.

    size: height and width of the frame.
    """
    low_res = low_res.float()
    masks = functional.interpolate(low_res, size, mode="bilinear", align_corners=False)[:, 0] > 0
    confidence = torch.stack([iou[:, 0].float(), presence[:, 0].float()])
    return Decoded(masks, low_res.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), confidence)
