"""SAM 1's image encoder with fused attention: the matrix of scores, and of the relative positions, is never built."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch.nn import functional


class FusedAttention(torch.nn.Module):
    """The package's `Attention` by `scaled_dot_product_attention`, with its weights.

    A score is q.k plus one term for the distance in rows and one for that in columns (decomposed relative positions).
    Both terms become part of the product: each query is extended by its terms for every row and column, each key by the
    indicators of its own row and column.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (n, y, x, channel), likewise returned."""
        heads, scale = self.attention.num_heads, self.attention.scale
        n, height, width, _ = x.shape
        query, key, value = self.attention.qkv(x).unflatten(-1, (3, heads, -1)).flatten(1, 2).permute(2, 0, 3, 1, 4)
        channels = value.shape[-1]
        if self.attention.use_rel_pos:
            rows, columns = self._distances(query.unflatten(2, (height, width)))
            spare = query.new_zeros(()).expand(n, heads, height * width, -(height + width) % 8)
            query = torch.cat([scale * query, rows, columns, spare], dim=-1)
            key = torch.cat([key, _indicators(height, width, spare.shape[-1], key).expand(n, heads, -1, -1)], dim=-1)
            # The fused kernels want values as wide as keys.
            value, scale = functional.pad(value, (0, key.shape[-1] - channels)), 1.0
        attended = functional.scaled_dot_product_attention(query, key, value, scale=scale)[..., :channels]
        return self.attention.proj(attended.transpose(1, 2).reshape(n, height, width, -1))

    def _distances(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Terms of each query (n, head, y, x, channel) for all rows and columns: (n, head, pixel, row or column)."""
        height, width = query.shape[2:4]
        of_rows = get_rel_pos(height, height, self.attention.rel_pos_h).to(query.dtype)
        of_columns = get_rel_pos(width, width, self.attention.rel_pos_w).to(query.dtype)
        rows = query @ of_rows.transpose(1, 2)
        columns = query.transpose(2, 3) @ of_columns.transpose(1, 2)
        return rows.flatten(2, 3), columns.transpose(2, 3).flatten(2, 3)


def _indicators(height: int, width: int, spare: int, like: torch.Tensor) -> torch.Tensor:
    """For each pixel, in rows, a one at its row and one at its column: (pixel, height + width + spare)."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return functional.pad(torch.cat([rows, columns], dim=1), (0, spare))


def fuse_attention(encoder: ImageEncoderViT) -> None:
    """Give each block of the image encoder its attention in fused form; to be called once its weights are loaded."""
    for block in encoder.blocks:
        block.attn = FusedAttention(block.attn)
