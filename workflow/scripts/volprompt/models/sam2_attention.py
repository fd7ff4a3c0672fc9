"""SAM 2's attention to memory: the package's weights, with narrow values, and rotary positions without copies.

Values: a memory token is narrower (64) than the attention that reads it (256), and its value has no position. So
softmax(QK)(MW + b) = (softmax(QK)M)W + b: scores are multiplied with the tokens themselves, and the value's and the
output's projections become one. Exact but for rounding.

Positions: the package turns pairs of neighbouring channels as complex numbers, in copies. In float32 on a CPU that is
done in place. Elsewhere they are turned in real numbers, which bfloat16 and a compiler can take.
"""

from __future__ import annotations

from typing import Any

import torch
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from torch.nn import Linear, Parameter

from volprompt.models.kernels import AttentionSettings, Kernel, Shape, attention_kernel


class MemoryAttention(torch.nn.Module):
    """The package's `MemoryAttention`, batch first, with its weights; to be made once they are loaded."""

    def __init__(self, attention: Any, image_tokens: int, memories: int, settings: AttentionSettings) -> None:
        """attention: of the package; image_tokens, memories: tokens of a slice, and slices that memory holds."""
        super().__init__()
        self.at_input = attention.pos_enc_at_input
        self.norm = attention.norm
        counts = image_tokens, image_tokens * memories
        self.layers: Any = torch.nn.ModuleList(_Layer(layer, counts, settings) for layer in attention.layers)

    @property
    def kernels(self) -> dict[str, str]:
        """The kernels of the first layer, with the reasons."""
        layer = self.layers[0]
        return {"memory": str(layer.cross.kernel), "slice": str(layer.own.kernel)}

    def forward(
        self,
        coarse: torch.Tensor,
        own: torch.Tensor,
        memory: torch.Tensor,
        positions: torch.Tensor,
        pointer_tokens: int,
    ) -> torch.Tensor:
        """Return the coarsest level, (n, channel, y, x), with memory in it.

        own: positions of the slice's pixels, (1, pixel, channel); memory, positions: (n, token, channel), those of
        object pointers last. Objects on one slice are the same until memory is read, so that their first self-attention
        is done once.
        """
        one_slice = coarse.stride(0) == 0
        seen = (coarse[:1] if one_slice else coarse).flatten(2).transpose(1, 2)
        own, memory, placed = (each.to(seen.dtype) for each in (own, memory, memory + positions))
        if self.at_input:
            seen = seen + 0.1 * own
        for layer in self.layers:
            seen = layer.attend_to_itself(seen, own)
            seen = layer.attend_to_memory(seen.expand(len(coarse), -1, -1), own, memory, placed, pointer_tokens)
        return self.norm(seen).transpose(1, 2).reshape(coarse.shape)


class _Layer(torch.nn.Module):
    """A `MemoryAttentionLayer` of the package."""

    def __init__(self, layer: Any, counts: tuple[int, int], settings: AttentionSettings) -> None:
        super().__init__()
        self.layer = layer
        image_tokens, memory_tokens = counts
        self.own = ProjectedAttention(layer.self_attn, (image_tokens, image_tokens), settings)
        self.cross = ProjectedAttention(layer.cross_attn_image, (image_tokens, memory_tokens), settings)

    def attend_to_itself(self, seen: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        normed = layer.norm1(seen)
        placed = normed + own if layer.pos_enc_at_attn else normed
        return seen + self.own(placed, placed, normed)

    def attend_to_memory(
        self, seen: torch.Tensor, own: torch.Tensor, memory: torch.Tensor, placed: torch.Tensor, pointers: int
    ) -> torch.Tensor:
        layer = self.layer
        normed = layer.norm2(seen)
        query = normed + own if layer.pos_enc_at_cross_attn_queries else normed
        key = placed if layer.pos_enc_at_cross_attn_keys else memory
        seen = seen + self.cross(query, key, memory, pointers)
        return seen + layer.linear2(layer.activation(layer.linear1(layer.norm3(seen))))


class ProjectedAttention(torch.nn.Module):
    """An `Attention` or `RoPEAttention` of the package, with a kernel of choice."""

    turns: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, attention: Attention, counts: tuple[int, int], settings: AttentionSettings) -> None:
        """counts: queries and keys at most."""
        super().__init__()
        self.heads = attention.num_heads
        self.rotates = isinstance(attention, RoPEAttention)
        self.pixels = counts[0]
        self.in_place = settings.in_complex_numbers
        self.query, self.key = attention.q_proj, attention.k_proj
        if self.rotates:
            self._prepare_turns(attention, settings.device)
        width = attention.internal_dim // self.heads
        self.kernel: Kernel = attention_kernel(settings, Shape(*counts, width, attention.kv_in_dim))
        if self.kernel.narrow and attention.kv_in_dim < width:
            self.value: torch.nn.Module | None = None
            self.out = _value_and_output(attention)
        else:
            self.value, self.out = attention.v_proj, attention.out_proj

    def _prepare_turns(self, attention: RoPEAttention, device: torch.device) -> None:
        """The angles of a grid's pixels: for each pair of channels a complex number, or for each channel two real ones.

        With real ones, each pair is needed in its order and the other way round, (a, b) and (b, a); both come from one
        projection.
        """
        side = round(self.pixels**0.5)
        turns = attention.compute_cis(end_x=side, end_y=side).to(device)
        if self.in_place:
            self.register_buffer("turns", turns[:, None], persistent=False)
            return
        cosine, sine = torch.view_as_real(turns).repeat_interleave(2, dim=1).unbind(-1)
        signs = torch.tensor([-1.0, 1.0], device=device).repeat(cosine.shape[1] // 2)
        self.register_buffer("cosine", cosine[:, None], persistent=False)
        self.register_buffer("sine", (sine * signs)[:, None], persistent=False)
        self.query, self.key = _with_swapped_pairs(self.query), _with_swapped_pairs(self.key)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, without_place: int = 0
    ) -> torch.Tensor:
        """Attend from tokens (n, query, channel) to tokens (n, key, channel); the last ones may be without place."""
        queries = self._place(self.query(query), query.shape[1])
        keys = self._place(self.key(key), key.shape[1] - without_place)
        values = value[:, None].to(queries.dtype) if self.value is None else self._separate(self.value(value))
        attended = self.kernel.attend(queries, keys, values)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _place(self, projected: torch.Tensor, placed: int) -> torch.Tensor:
        """Rotate the first tokens, grids of pixels one after another, and return all: (n, head, token, channel)."""
        if not self.rotates:
            return self._separate(projected)
        grids = projected[:, :placed].unflatten(1, (-1, self.pixels))
        if self.in_place:
            torch.view_as_complex(grids.unflatten(-1, (self.heads, -1, 2))).mul_(self.turns)
            return self._separate(projected)
        plain, swapped = (half.unflatten(-1, (self.heads, -1)) for half in grids.chunk(2, dim=-1))
        turned = torch.addcmul(plain * self.cosine, swapped, self.sine).to(projected.dtype).flatten(1, 2)
        others = projected[:, placed:].chunk(2, dim=-1)[0].unflatten(-1, (self.heads, -1))
        return torch.cat([turned, others], dim=1).transpose(1, 2)

    def _separate(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, token, channel) as (n, head, token, channel)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _with_swapped_pairs(projection: Linear) -> Linear:
    """A projection that gives its channels, and then its channels with the two of each pair exchanged."""
    weight, bias = (
        torch.cat([each, each.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)])
        for each in (projection.weight, projection.bias)
    )
    return _linear(weight, bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> Linear:
    """A layer of given weights (out, in) and bias (out)."""
    layer = Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = Parameter(weight.detach()), Parameter(bias.detach())
    return layer


def _value_and_output(attention: Attention) -> Linear:
    """The projections of values and of the output as one, of tokens weighted by each head."""
    value = attention.v_proj.weight.unflatten(0, (attention.num_heads, -1))
    output = attention.out_proj.weight.unflatten(1, (attention.num_heads, -1))
    weight = torch.einsum("ohd,hdk->ohk", output, value).flatten(1)
    return _linear(weight, attention.out_proj(attention.v_proj.bias))
