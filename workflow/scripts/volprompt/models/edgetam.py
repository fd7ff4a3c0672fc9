"""EdgeTAM (package transformers): a small image encoder, and memories that a perceiver makes small."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig, TimmWrapperConfig
from transformers.models.edgetam_video.modeling_edgetam_video import window_partition

from volprompt.models.kernels import AttentionSettings
from volprompt.models.memory_attention import LayerWeights
from volprompt.models.transformers_model import TransformersModel, both_embeddings
from volprompt.models.transformers_parts import TransformersParts, flat, weights_of


class EdgeTamParts(TransformersParts):
    """See `MemoryParts`: a memory is some tokens of no place, and then a coarse grid."""

    def __init__(self, module: Any, settings: AttentionSettings) -> None:
        # The package's way fails with more than one object.
        perceiver = module.spatial_perceiver
        perceiver._forward_2d = partial(_perceive_windows, perceiver)
        super().__init__(module, settings)

    def encode_positions(self) -> torch.Tensor:
        """As the perceiver hands them on."""
        empty = torch.zeros(1, self.module.mem_dim, *self.grid, device=self.positions.device)
        positions: torch.Tensor = self.module.spatial_perceiver(empty, empty)[1]
        return positions

    def layer_weights(self, layer: Any) -> LayerWeights:
        """Tokens of no place are not turned."""
        attention = self.module.memory_attention
        pixels, grid = self.turns(attention.position_ids), self.turns(attention.position_ids_k)
        unplaced = torch.ones_like(grid[:1]).expand(self.memory_positions.shape[1] - len(grid), -1)
        return LayerWeights(
            itself=weights_of(layer.self_attn, (pixels, pixels)),
            memory=weights_of(layer.cross_attn_image, (pixels, torch.cat([unplaced, grid]))),
            feed_forward=layer.mlp,
            norms=(layer.layer_norm1, layer.layer_norm2, layer.layer_norm3),
        )

    def encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """See `MemoryParts`."""
        return self.remember(coarse, high_res, presence, prompted)


def _perceive_windows(perceiver: Any, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the perceiver makes of each window of memories (n, channel, y, x): a token each, and its position."""
    count, channels, height, _ = memory.shape
    side = round(perceiver.num_latents_2d**0.5)
    windows, _ = window_partition(memory.permute(0, 2, 3, 1), height // side)
    latents = perceiver.latents_2d.repeat(count, 1)[:, None]
    for layer in perceiver.layers:
        latents = layer(latents, windows.flatten(1, 2), positional_encoding=None)
    tokens = perceiver.layer_norm(latents.view(count, side * side, channels))
    encoding = perceiver.positional_encoding((count, channels, side, side), memory.device, memory.dtype)
    return tokens, flat(encoding).to(memory.dtype)


class EdgeTamModel(TransformersModel):
    """`edgetam`, or the `config.json` of an `EdgeTamVideoModel`."""

    config_class = EdgeTamVideoConfig
    model_class = EdgeTamVideoModel
    parts_class = EdgeTamParts
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    @staticmethod
    def published() -> EdgeTamVideoConfig:
        """The one size that there is, whose pointers do not say how far away they are."""
        levels = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        encoder = TimmWrapperConfig(architecture="repvit_m1.dist_in1k", model_args=levels)
        return EdgeTamVideoConfig(
            vision_config=EdgeTamVisionConfig(backbone_config=encoder),
            enable_temporal_pos_encoding_for_object_pointers=False,
            enable_occlusion_spatial_embedding=False,
        )

    @staticmethod
    def weights_of(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The model's weights."""
        return both_embeddings(tensors)
