"""Models of transformers with SAM 2's kind of memory: what SAM 3's tracker and EdgeTAM share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms.v2.functional import resize
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from volprompt.checkpoints.model_settings import read_model_settings
from volprompt.models.base import Decoded, PromptableModel, to_device
from volprompt.models.devices import Device
from volprompt.models.kernels import AttentionSettings
from volprompt.models.memory_tracking import MemoryTracker
from volprompt.models.model import ArchitectureError
from volprompt.models.sam2_inputs import LARGEST_LOGIT, point_inputs
from volprompt.models.transformers_parts import TransformersParts
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice

logging.set_verbosity_error()


class TransformersModel(PromptableModel):
    """A video model of transformers, which is also asked for images.

    Frames are resized as the package's processors do (torchvision, bilinear with antialias, on 8 bit), for image and
    video schemes alike.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    model_class: ClassVar[type[PreTrainedModel]]
    parts_class: ClassVar[type[TransformersParts]]
    mean: ClassVar[Sequence[float]]  # of the colours, with which the package normalises
    std: ClassVar[Sequence[float]]

    def __init__(self, module: Any, device: Device) -> None:
        super().__init__(module, device)
        with torch.no_grad():
            settings = AttentionSettings(self.device, self.precision, self.attends_as_package)
            self.tracking = self.parts_class(module, settings)
        self.head_start = self.tracking.rules.head_start
        # Of 8-bit values, as the package does it
        self.shift, self.scale = (
            255 * torch.tensor(each, device=self.device).view(-1, 1, 1) for each in (self.mean, self.std)
        )

    @staticmethod
    @abstractmethod
    def published() -> PreTrainedConfig:
        """The settings of the published model."""

    @classmethod
    def build(cls, architecture: str, image_size: int | None = None) -> torch.nn.Module:
        """A `model_class` of the package, of the published settings or those of a `config.json`."""
        if not Path(architecture).is_file():
            return cls._built(cls.published())
        settings = read_model_settings(architecture)
        try:
            return cls._built(cls.config_class.from_dict(settings))
        except Exception as error:  # a user's file can fail in any of the package's classes
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ArchitectureError(f"{architecture}: no model can be built from this file: {first}") from error

    @classmethod
    def _built(cls, config: PreTrainedConfig) -> torch.nn.Module:
        return cls.model_class._from_config(config, attn_implementation="sdpa").eval()

    @property
    def kernels(self) -> dict[str, str]:
        """Of the attention to memory; the encoder and the decoder are the package's."""
        return self.tracking.attention.kernels

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The encoder, the attention to memory, the decoder, and the memory encoder."""
        module = self.module
        return module.vision_encoder, self.tracking.attention, module.mask_decoder, module.memory_encoder

    @property
    def image_size(self) -> int:
        """1008 for SAM 3, 1024 for EdgeTAM."""
        return self.tracking.image_size

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Resize to the size of the model's image."""
        size = [self.image_size, self.image_size]
        resized: np.ndarray = resize(torch.from_numpy(frames)[:, None], size, antialias=True)[:, 0].numpy()
        return resized

    def encode(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Normalize and encode: the levels that the mask decoder and the memory use, finest first."""
        colour = (to_device(frames, self.device)[:, None].float() - self.shift) / self.scale
        levels = self.module.get_image_features(colour, return_dict=True).fpn_hidden_states
        kind = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        sizes = self.module.backbone_feature_sizes
        return [level.permute(1, 2, 0).unflatten(2, size).to(kind) for level, size in zip(levels, sizes, strict=True)]

    def decode(
        self,
        levels: Sequence[torch.Tensor],
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        multimask: MaskChoice,
        logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Prompts of any slices are one batch."""
        *fine, coarse = levels
        points = point_inputs(prompts, size, self.image_size, self.device)
        low_res, iou, _, presence = self.tracking.decode_masks(
            coarse + self.tracking.no_memory, fine, points, logits, multimask
        )
        low_res = low_res.float()
        masks = functional.interpolate(low_res, size, mode="bilinear", align_corners=False)[:, 0] > 0
        confidence = torch.stack([iou[:, 0].float(), presence[:, 0].float()])
        return Decoded(masks, low_res.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), confidence)

    def tracker(self, hole_area: int = 0) -> MemoryTracker:
        """A tracker for some volumes."""
        return MemoryTracker(self.tracking, hole_area, self.largest_batch)


def both_embeddings(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors, where the embedding of places, which two of its parts share, may have been saved once."""
    names = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
    saved = [tensors[name] for name in names if name in tensors]
    return {**tensors, **dict.fromkeys(names, saved[0])} if saved else dict(tensors)
