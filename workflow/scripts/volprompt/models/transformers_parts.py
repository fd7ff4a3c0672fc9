"""The parts of a video model of transformers that tracking calls: those of SAM 3's tracker and of EdgeTAM are alike.

The package's own functions for one slice of one object mix objects in a batch, so that what follows its prompt encoder
and mask decoder is done here, for batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

from volprompt.models.kernels import AttentionSettings
from volprompt.models.memory_attention import AttentionWeights, LayerWeights, MemoryAttention
from volprompt.models.memory_parts import Heads
from volprompt.models.memory_plan import MemoryRules
from volprompt.settings.schemes import MaskChoice

# Logits of a mask that is a prompt, inside and outside.
INSIDE, OUTSIDE = 10.0, -10.0


class TransformersParts(ABC):
    """See `MemoryParts`. To be made once the model's weights are loaded."""

    positions: torch.Tensor
    memory_positions: torch.Tensor
    remembers_shown = False

    def __init__(self, module: Any, settings: AttentionSettings) -> None:
        self.module = module
        self.rules = memory_rules(module)
        self.image_size = int(module.image_size)
        self.grid: tuple[int, int] = tuple(module.backbone_feature_sizes[-1])
        self.image_positions = module.get_image_wide_positional_embeddings().detach()
        neck, channels = module.vision_encoder.neck, module.hidden_dim
        self.positions = flat(neck.position_encoding((1, channels, *self.grid), settings.device, torch.float32))
        self.memory_positions = self.encode_positions().detach()
        self.positions_in_time = module.memory_temporal_positional_encoding.flatten(1)
        self.no_memory = module.no_memory_embedding.reshape(1, -1, 1, 1)
        slice_tokens, memory_tokens = self.grid[0] * self.grid[1], self.memory_positions.shape[1]
        self.attention = MemoryAttention(
            [self.layer_weights(layer) for layer in module.memory_attention.layers],
            module.memory_attention.layer_norm,
            placed_at_input=True,
            counts=(slice_tokens, memory_tokens * max(1, self.rules.slices)),
            settings=settings,
        )

    @abstractmethod
    def encode_positions(self) -> torch.Tensor:
        """Encoding of a memory's tokens, (1, token, channel)."""

    @abstractmethod
    def layer_weights(self, layer: Any) -> LayerWeights:
        """The weights of a layer of the package's attention to memory."""

    @abstractmethod
    def encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """See `MemoryParts`."""

    def decode(
        self,
        coarse: torch.Tensor,
        fine: Sequence[torch.Tensor],
        points: Mapping[str, torch.Tensor] | None,
        logits: torch.Tensor | None,
        first: bool,
    ) -> Heads:
        """See `MemoryParts`."""
        several = self.module._use_multimask(first, _for_one_object(points))
        low_res, iou, token, presence = self.decode_masks(coarse, fine, points, logits, "best" if several else False)
        seen = presence > 0
        low_res = torch.where(seen[..., None, None], low_res.float(), NO_OBJ_SCORE)
        size = (self.image_size, self.image_size)
        high_res = functional.interpolate(low_res, size, mode="bilinear", align_corners=False)
        return Heads(low_res, high_res, iou, self._point_to(token, seen), presence)

    def decode_masks(
        self,
        coarse: torch.Tensor,
        fine: Sequence[torch.Tensor],
        points: Mapping[str, torch.Tensor] | None,
        logits: torch.Tensor | None,
        multimask: MaskChoice,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode one mask of each slice, by the choice `multimask`.

        Returns mask logits (n, 1, y, x), predicted IoU (n, 1), the mask's token (n, channel) and the object score logit
        (n, 1).
        """
        module, count = self.module, len(coarse)
        given = _for_one_object(points) or {
            "point_coords": coarse.new_zeros(count, 1, 1, 2, dtype=torch.float32),
            "point_labels": torch.full((count, 1, 1), -1, dtype=torch.int32, device=coarse.device),
        }
        sparse, dense = module.prompt_encoder(
            input_points=given["point_coords"],
            input_labels=given["point_labels"],
            input_boxes=None,
            input_masks=logits,
        )
        masks, iou, tokens, presence = module.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=self.image_positions.expand(count, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=bool(multimask),
            high_resolution_features=list(fine),
        )
        # One object for each slice
        masks, iou, tokens, presence = masks[:, 0], iou[:, 0], tokens[:, 0], presence[:, 0]
        rows = torch.arange(count, device=masks.device)
        chosen = iou.argmax(dim=1) if multimask == "best" else torch.zeros_like(rows)
        token = tokens[rows, chosen] if tokens.shape[1] > 1 else tokens[:, 0]
        return masks[rows, chosen, None], iou[rows, chosen, None], token, presence

    def take_mask(self, coarse: torch.Tensor, fine: Sequence[torch.Tensor], masks: torch.Tensor) -> Heads:
        """See `MemoryParts`."""
        high_res = masks * (INSIDE - OUTSIDE) + OUTSIDE
        size = self.module.prompt_encoder.mask_input_size
        low_res = functional.interpolate(high_res, size, mode="bilinear", align_corners=False, antialias=True)
        seen = masks.flatten(1).any(dim=1)[:, None]
        prompt = self.module.mask_downsample(masks)
        if prompt.shape[-2:] != size:
            prompt = functional.interpolate(prompt, size, mode="bilinear", align_corners=False, antialias=True)
        _, _, token, decoded = self.decode_masks(coarse, fine, None, prompt, "best")
        # A pointer is that of a mask which is there by the decoder, and by the prompt.
        pointer = self._point_to(token, (decoded > 0) & seen)
        presence = torch.where(seen, INSIDE, OUTSIDE)
        return Heads(low_res, high_res, torch.ones_like(presence), pointer, presence)

    def encode_distances(self, shares: torch.Tensor) -> torch.Tensor | None:
        """See `MemoryParts`."""
        if not self.module.config.enable_temporal_pos_encoding_for_object_pointers:
            return None
        projection = self.module.temporal_positional_encoding_projection_layer
        encoded: torch.Tensor = projection(get_1d_sine_pe(shares, dim=self.module.hidden_dim))
        return encoded

    def _point_to(self, token: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """The object pointer (n, channel) of a mask's token; seen: bool (n, 1)."""
        pointer = self.module.object_pointer_proj(token)
        return torch.where(seen, pointer, self.module.no_object_pointer.to(pointer.dtype))

    def remember(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """What the package makes of masks for its memory."""
        memory: torch.Tensor = self.module._encode_new_memory(
            current_vision_feats=coarse.flatten(2).permute(2, 0, 1),
            pred_masks_high_res=high_res,
            object_score_logits=presence[:, None],
            is_mask_from_pts=prompted,
        )[0]
        return memory

    def turns(self, positions: torch.Tensor) -> torch.Tensor:
        """Rotary positions, complex (token, pair of channels), of pixels whose places are `positions`, (token, 2)."""
        cosine, sine = self.module.memory_attention.rotary_emb(positions, positions)
        return torch.complex(cosine[0, :, ::2], sine[0, :, ::2])


def memory_rules(module: Any) -> MemoryRules:
    """What the settings of a video model of transformers say of its memory."""
    return MemoryRules(
        slices=module.num_maskmem,
        prompted=module.config.max_cond_frame_num,
        pointers=module.config.max_object_pointers_in_encoder,
        pointers_of_all=True,
    )


def weights_of(attention: Any, turns: tuple[torch.Tensor, torch.Tensor]) -> AttentionWeights:
    """The weights of an attention of the package with rotary positions."""
    projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    return AttentionWeights(*projections, attention.num_attention_heads, turns)


def flat(level: torch.Tensor) -> torch.Tensor:
    """(n, channel, y, x) as (n, pixel, channel)."""
    return level.flatten(2).transpose(1, 2)


def _for_one_object(points: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    """Points as the package takes them, (n, 1, points, ...): one object for each slice."""
    return {name: each[:, None] for name, each in points.items()} if points is not None else None
