"""The parts of a `sam2.modeling.sam2_base.SAM2Base` that tracking calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from sam2.modeling.sam2_utils import get_1d_sine_pe

from volprompt.models.kernels import AttentionSettings
from volprompt.models.memory_attention import AttentionWeights, FeedForward, LayerWeights, MemoryAttention
from volprompt.models.memory_parts import Heads
from volprompt.models.memory_plan import MemoryRules


class Sam2Parts:
    """See `MemoryParts`. To be made once the module's weights are loaded."""

    remembers_shown = True

    def __init__(self, module: Any, settings: AttentionSettings) -> None:
        """The positions of pixels are taken out of the module, which would compute them again for every slice."""
        self.module = module
        self.rules = memory_rules(module)
        self.image_size = int(module.image_size)
        grid = tuple(module.sam_prompt_encoder.image_embedding_size)
        encoders = module.image_encoder.neck, module.memory_encoder
        of_slice, of_memory = (_positions(each.position_encoding, grid, settings.device) for each in encoders)
        self.positions, self.memory_positions = of_slice, of_memory
        for each in encoders:
            each.position_encoding = _NoPositions()
        self.positions_in_time = module.maskmem_tpos_enc.flatten(1)
        self.no_memory = module.no_mem_embed.reshape(1, -1, 1, 1)
        self.attention = attention_of(module.memory_attention, grid[0] * grid[1], self.rules.slices, settings)

    def decode(
        self,
        coarse: torch.Tensor,
        fine: Sequence[torch.Tensor],
        points: Mapping[str, torch.Tensor] | None,
        logits: torch.Tensor | None,
        first: bool,
    ) -> Heads:
        """See `MemoryParts`."""
        outputs = self.module._forward_sam_heads(
            backbone_features=coarse,
            point_inputs=points,
            mask_inputs=logits,
            high_res_features=list(fine) or None,
            multimask_output=self.module._use_multimask(first, points),
        )
        return _heads_of(outputs)

    def take_mask(self, coarse: torch.Tensor, fine: Sequence[torch.Tensor], masks: torch.Tensor) -> Heads:
        """See `MemoryParts`; models that are not set so (the published ones are) decode masks like other prompts."""
        if self.module.use_mask_input_as_output_without_sam:
            return _heads_of(self.module._use_mask_as_output(coarse, list(fine) or None, masks))
        return self.decode(coarse + self.no_memory, fine, None, masks, first=True)

    def encode_memory(
        self, coarse: torch.Tensor, high_res: torch.Tensor, presence: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """See `MemoryParts`."""
        memory, _ = self.module._encode_new_memory(
            current_vision_feats=[coarse.flatten(2).permute(2, 0, 1)],
            feat_sizes=[coarse.shape[-2:]],
            pred_masks_high_res=high_res,
            object_score_logits=presence,
            is_mask_from_pts=prompted,
        )
        return memory.flatten(2).transpose(1, 2).to(torch.bfloat16)

    def encode_distances(self, shares: torch.Tensor) -> torch.Tensor | None:
        """See `MemoryParts`."""
        module = self.module
        if not module.add_tpos_enc_to_obj_ptrs:
            return None
        width = module.hidden_dim if module.proj_tpos_enc_in_obj_ptrs else module.mem_dim
        encoded: torch.Tensor = module.obj_ptr_tpos_proj(get_1d_sine_pe(shares, dim=width))
        return encoded


def memory_rules(module: Any) -> MemoryRules:
    """What the settings of a `SAM2Base` say of its memory."""
    return MemoryRules(
        slices=module.num_maskmem,
        stride=module.memory_temporal_stride_for_eval,
        prompted=module.max_cond_frames_in_attn,
        pointers=module.max_obj_ptrs_in_encoder if module.use_obj_ptrs_in_encoder else 0,
        signed=module.use_signed_tpos_enc_to_obj_ptrs,
        past_only=module.only_obj_ptrs_in_the_past_for_eval,
    )


def attention_of(attention: Any, slice_tokens: int, memories: int, settings: AttentionSettings) -> MemoryAttention:
    """Of the package's `MemoryAttention`; memories: that are held at most."""
    layers = [
        LayerWeights(
            itself=_weights_of(layer.self_attn, slice_tokens),
            memory=_weights_of(layer.cross_attn_image, slice_tokens),
            feed_forward=FeedForward(layer.linear1, layer.activation, layer.linear2),
            norms=(layer.norm1, layer.norm2, layer.norm3),
            placed_itself=layer.pos_enc_at_attn,
            placed_queries=layer.pos_enc_at_cross_attn_queries,
            placed_keys=layer.pos_enc_at_cross_attn_keys,
        )
        for layer in attention.layers
    ]
    counts = slice_tokens, slice_tokens * max(1, memories)
    return MemoryAttention(layers, attention.norm, attention.pos_enc_at_input, counts, settings)


def _weights_of(attention: Attention, slice_tokens: int) -> AttentionWeights:
    turns = None
    if isinstance(attention, RoPEAttention):
        side = round(slice_tokens**0.5)
        turns = attention.compute_cis(end_x=side, end_y=side)
    return AttentionWeights(
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.out_proj,
        attention.num_heads,
        None if turns is None else (turns, turns),
    )


def _heads_of(outputs: Sequence[torch.Tensor]) -> Heads:
    """outputs: of the package's `_forward_sam_heads` or `_use_mask_as_output`."""
    _, _, iou, low_res, high_res, pointer, presence = outputs
    return Heads(low_res, high_res, iou, pointer, presence)


def _positions(encoding: torch.nn.Module, size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The encoding of pixels, (1, pixel, channel), that a part of the package gives with what it makes of an image.

    It depends on the size alone: height and width.
    """
    return encoding(torch.empty(1, 1, *size, device=device)).flatten(2).transpose(1, 2)


class _NoPositions(torch.nn.Module):
    """In place of position encodings, which are large and the same for every slice."""

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        return level[:0]
