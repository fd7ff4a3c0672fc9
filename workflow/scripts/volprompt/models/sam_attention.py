"""SAM 1 with fused attention: neither its scores nor the bias of all relative positions are built."""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from segment_anything.modeling.transformer import Attention as DecoderAttention
from torch.nn import functional

from volprompt.models.decoder_attention import choose_kernels
from volprompt.models.kernels import AttentionSettings

# Queries at a time: the bias of so many is small enough for a CPU's cache, and a GPU is still busy.
QUERIES = 1024


class FusedAttention(torch.nn.Module):
    """The encoder's `Attention` by `scaled_dot_product_attention`, with its weights.

    A score is q.k plus one term for the distance in rows and one for that in columns (decomposed relative positions).
    Their sum is a bias as large as all scores; it is built and used for some rows of queries after another.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        if attention.use_rel_pos:
            # Of each pair of rows, and of columns, (position, position, channel): the same for every image.
            self.of_rows, self.of_columns = (
                torch.nn.Parameter(get_rel_pos(side, side, table).detach())
                for table in (attention.rel_pos_h, attention.rel_pos_w)
                for side in [(len(table) + 1) // 2]
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (n, y, x, channel), likewise returned."""
        heads = self.attention.num_heads
        n, height, width, _ = x.shape
        query, key, value = self.attention.qkv(x).unflatten(-1, (3, heads, -1)).flatten(1, 2).permute(2, 0, 3, 1, 4)
        if not self.attention.use_rel_pos:
            attended = functional.scaled_dot_product_attention(query, key, value)
        else:
            grid = query.unflatten(2, (height, width))
            rows, columns = self._distances(grid)
            parts = []
            step = max(1, QUERIES // width)
            for first in range(0, height, step):
                some = slice(first, first + step)
                bias = (rows[:, :, some, :, :, None] + columns[:, :, some, :, None, :]).flatten(4).flatten(2, 3)
                queries = grid[:, :, some].flatten(2, 3)
                parts.append(functional.scaled_dot_product_attention(queries, key, value, attn_mask=bias))
            attended = torch.cat(parts, dim=2)
        return self.attention.proj(attended.transpose(1, 2).reshape(n, height, width, -1))

    def _distances(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Terms of each query (n, head, y, x, channel) for all rows and columns: (n, head, y, x, row or column)."""
        rows = query @ self.of_rows.transpose(1, 2)
        columns = query.transpose(2, 3) @ self.of_columns.transpose(1, 2)
        return rows, columns.transpose(2, 3)


def fuse_attention(sam: Any, settings: AttentionSettings) -> None:
    """Give the encoder of a `segment_anything.modeling.Sam` its attention in fused form, and the decoder by its shape.

    To be called once its weights are loaded.
    """
    for block in sam.image_encoder.blocks:
        block.attn = FusedAttention(block.attn)
    choose_kernels(sam.mask_decoder.transformer, DecoderAttention, settings)
