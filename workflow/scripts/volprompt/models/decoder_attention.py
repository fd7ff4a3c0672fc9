"""The attention of SAM's mask decoder, for which the packages of SAM and SAM 2 have classes alike in their parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from volprompt.models.kernels import AttentionSettings, attend_by_shape


def choose_kernels(transformer: torch.nn.Module, kind: type, settings: AttentionSettings) -> None:
    """Let each attention of a decoder's transformer take the kernel for its shape. kind: the package's class."""
    for part in transformer.modules():
        if isinstance(part, kind):
            part.forward = partial(_attend, part, settings)


def _attend(
    attention: Any, settings: AttentionSettings, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """The forward pass of the package's `Attention`, all (n, token, channel)."""
    separate = (
        attention._separate_heads(projected, attention.num_heads)
        for projected in (attention.q_proj(q), attention.k_proj(k), attention.v_proj(v))
    )
    attended = attend_by_shape(settings, *separate)
    return attention.out_proj(attention._recombine_heads(attended))
