"""Models of transformers with SAM 2's kind of memory: what SAM 3's tracker and EdgeTAM share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from volprompt.checkpoints.model_settings import read_model_settings
from volprompt.errors import first_line
from volprompt.models.base import Decoded, to_device
from volprompt.models.devices import Device
from volprompt.models.memory_model import MemoryModel, decoded_of
from volprompt.models.model import ArchitectureError
from volprompt.models.sam2_inputs import point_inputs
from volprompt.models.transformers_parts import TransformersParts
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice

logging.set_verbosity_error()


class TransformersModel(MemoryModel):
    """A video model of transformers, which is also asked for images.

    Frames are resized as the package's processors do (torchvision, bilinear with antialias, on 8 bit), for image and
    video schemes alike.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    model_class: ClassVar[type[PreTrainedModel]]
    parts_class: ClassVar[type[TransformersParts]]
    tracking: TransformersParts
    mean: ClassVar[Sequence[float]]  # of the colours, with which the package normalises
    std: ClassVar[Sequence[float]]

    def __init__(self, module: Any, device: Device) -> None:
        super().__init__(module, device)
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
            raise ArchitectureError(
                f"{architecture}: no model can be built from this file: {first_line(error)}"
            ) from error

    @classmethod
    def _built(cls, config: PreTrainedConfig) -> torch.nn.Module:
        return cls.model_class._from_config(config, attn_implementation="sdpa").eval()

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The encoder, the attention to memory, the decoder, and the memory encoder."""
        module = self.module
        return module.vision_encoder, self.tracking.attention, module.mask_decoder, module.memory_encoder

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Resize to the size of the model's image."""
        size = [self.image_size, self.image_size]
        resized: np.ndarray = resize(torch.from_numpy(frames)[:, None], size, antialias=True)[:, 0].numpy()
        return resized

    def encode(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Normalize and encode: the levels that the mask decoder and the memory use, finest first."""
        colour = (to_device(frames, self.device)[:, None].float() - self.shift) / self.scale
        levels = self.module.get_image_features(colour, return_dict=True).fpn_hidden_states
        sizes, kind = self.module.backbone_feature_sizes, self.level_type
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
        return decoded_of(low_res, iou, presence, size)


def both_embeddings(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors, where the embedding of places, which two of its parts share, may have been saved once."""
    names = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
    saved = [tensors[name] for name in names if name in tensors]
    return {**tensors, **dict.fromkeys(names, saved[0])} if saved else dict(tensors)
