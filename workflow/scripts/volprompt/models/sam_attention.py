"""SAM 1's image encoder with fused attention: neither its scores nor the bias of all relative positions are built."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch.nn import functional

# Queries at a time: the bias of so many is small enough for a CPU's cache, and a GPU is still busy.
QUERIES = 1024


class FusedAttention(torch.nn.Module):
    """The package's `Attention` by `scaled_dot_product_attention`, with its weights.

    A score is q.k plus one term for the distance in rows and one for that in columns (decomposed relative positions).
    Their sum is a bias as large as all scores; it is built and used for some rows of queries after another.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

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
        height, width = query.shape[2:4]
        of_rows = get_rel_pos(height, height, self.attention.rel_pos_h).to(query.dtype)
        of_columns = get_rel_pos(width, width, self.attention.rel_pos_w).to(query.dtype)
        rows = query @ of_rows.transpose(1, 2)
        columns = query.transpose(2, 3) @ of_columns.transpose(1, 2)
        return rows, columns.transpose(2, 3)


def fuse_attention(encoder: ImageEncoderViT) -> None:
    """Give each block of the image encoder its attention in fused form; to be called once its weights are loaded."""
    for block in encoder.blocks:
        block.attn = FusedAttention(block.attn)
