"""SAM 3's tracker (package transformers): the part of SAM 3 that takes points, boxes and masks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel

from volprompt.models.memory_attention import FeedForward, LayerWeights
from volprompt.models.transformers_model import TransformersModel, both_embeddings
from volprompt.models.transformers_parts import TransformersParts, flat, weights_of

# The file of all of SAM 3: the tracker, with an encoder that the detector shares, and a neck of its own.
WHOLE = "tracker_model."
RENAMED = {
    r"^tracker_model\.": "",
    r"^detector_model\.vision_encoder\.backbone\.": "vision_encoder.backbone.",
    r"^tracker_neck\.": "vision_encoder.neck.",
}
OTHERS = "detector_model."


class Sam3Parts(TransformersParts):
    """See `MemoryParts`: memories are grids of pixels, as SAM 2's are."""

    def encode_positions(self) -> torch.Tensor:
        """Of the grid's pixels."""
        encoding = self.module.memory_encoder.position_encoding
        return flat(encoding((1, self.module.mem_dim, *self.grid), self.positions.device, torch.float32))

    def layer_weights(self, layer: Any) -> LayerWeights:
        """Both attentions turn the pixels of a slice, and of each memory, in the same way."""
        turns = (self.turns(self.module.memory_attention.position_ids),) * 2
        return LayerWeights(
            itself=weights_of(layer.self_attn, turns),
            memory=weights_of(layer.cross_attn_image, turns),
            feed_forward=FeedForward(layer.linear1, layer.activation, layer.linear2),
            norms=(layer.layer_norm1, layer.layer_norm2, layer.layer_norm3),
        )

    def encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """In bfloat16, as the package keeps them."""
        return self.remember(coarse, high_res, presence, prompted).transpose(0, 1)


class Sam3Model(TransformersModel):
    """`sam3`, or the `config.json` of a `Sam3TrackerVideoModel`."""

    config_class = Sam3TrackerVideoConfig
    model_class = Sam3TrackerVideoModel
    parts_class = Sam3Parts
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    @staticmethod
    def published() -> Sam3TrackerVideoConfig:
        """The one size that there is."""
        return Sam3TrackerVideoConfig()

    @staticmethod
    def weights_of(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The tracker's weights: of a file of its own, or of that of all of SAM 3."""
        if any(name.startswith(WHOLE) for name in tensors):
            renamed = {_renamed(name): tensor for name, tensor in tensors.items()}
            tensors = {name: tensor for name, tensor in renamed.items() if not name.startswith(OTHERS)}
        return both_embeddings(tensors)


def _renamed(name: str) -> str:
    for found, instead in RENAMED.items():
        name = re.sub(found, instead, name)
    return name
