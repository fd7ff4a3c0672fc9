"""SAM 2's encoder and decoder as a CPU computes them faster; its attention to memory is a module of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import MultiScaleAttention, do_pool
from sam2.modeling.sam.transformer import Attention

from volprompt.models.decoder_attention import choose_kernels
from volprompt.models.kernels import AttentionSettings, attend_by_shape


def suit_cpu(module: Any, settings: AttentionSettings) -> None:
    """Let the attention of a `SAM2Base`'s encoder and decoder take the kernel for its shape."""
    choose_kernels(module.sam_mask_decoder.transformer, Attention, settings)
    trunk = module.image_encoder.trunk
    # The blocks after it take channels last, and would go on with the layout of its result.
    trunk.patch_embed.to(memory_format=torch.channels_last)
    for part in trunk.modules():
        if isinstance(part, MultiScaleAttention):
            part.forward = partial(_attend, part, settings)


def _attend(attention: Any, settings: AttentionSettings, x: torch.Tensor) -> torch.Tensor:
    """The forward pass of `MultiScaleAttention`: windows (n, y, x, channel), of fewer tokens after pooling."""
    query, key, value = attention.qkv(x).unflatten(3, (3, attention.num_heads, -1)).unbind(3)
    if attention.q_pool:
        query = do_pool(query.flatten(3), attention.q_pool).unflatten(3, query.shape[3:])
    height, width = query.shape[1:3]
    tokens = (each.flatten(1, 2).transpose(1, 2) for each in (query, key, value))
    attended = attend_by_shape(settings, *tokens)
    return attention.proj(attended.transpose(1, 2).flatten(2).unflatten(1, (height, width)))
