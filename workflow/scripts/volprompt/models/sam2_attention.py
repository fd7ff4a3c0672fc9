"""SAM 2's attention to memory: the package's weights, with narrow values, and rotary positions in real numbers.

Values: a memory token is narrower (64) than the attention that reads it (256), and its value has no position. So
softmax(QK)(MW + b) = (softmax(QK)M)W + b: scores are multiplied with the tokens themselves, and the value's and the
output's projections become one. Exact but for rounding.

Positions: the package turns pairs of neighbouring channels as complex numbers. Here the channels of queries and keys
are put into another order, the same for both, so that a pair's halves lie in two halves of the tensor; their products
stay what they were.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from torch.nn import Linear, Parameter

from volprompt.models.kernels import Kernel, Shape, attention_kernel


class MemoryAttention(torch.nn.Module):
    """The package's `MemoryAttention`, batch first, with its weights; to be made once they are loaded."""

    def __init__(self, attention: Any, image_tokens: int, memories: int, precision: str) -> None:
        """attention: of the package; image_tokens, memories: tokens of a slice, and slices that memory holds."""
        super().__init__()
        self.at_input = attention.pos_enc_at_input
        self.norm = attention.norm
        counts = image_tokens, image_tokens * memories
        self.layers: Any = torch.nn.ModuleList(_Layer(layer, counts, precision) for layer in attention.layers)

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
        own, memory = own.to(seen.dtype), memory.to(seen.dtype)
        placed = (memory + positions).to(seen.dtype)
        if self.at_input:
            seen = seen + 0.1 * own
        for layer in self.layers:
            seen = layer.attend_to_itself(seen, own)
            seen = layer.attend_to_memory(seen.expand(len(coarse), -1, -1), own, memory, placed, pointer_tokens)
        return self.norm(seen).transpose(1, 2).reshape(coarse.shape)


class PackageAttention(torch.nn.Module):
    """The same as the package computes it, to the last bit."""

    kernels: ClassVar[dict[str, str]] = {"memory": "as the package"}

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self,
        coarse: torch.Tensor,
        own: torch.Tensor,
        memory: torch.Tensor,
        positions: torch.Tensor,
        pointer_tokens: int,
    ) -> torch.Tensor:
        """See `MemoryAttention.forward`."""
        tokens = coarse.flatten(2).permute(2, 0, 1)
        seen = self.attention(
            curr=tokens,
            curr_pos=own.to(coarse.dtype).expand(len(coarse), -1, -1).transpose(0, 1),
            memory=memory.transpose(0, 1),
            memory_pos=positions.transpose(0, 1),
            num_obj_ptr_tokens=pointer_tokens,
        )
        return seen.permute(1, 2, 0).reshape(coarse.shape)


class _Layer(torch.nn.Module):
    """A `MemoryAttentionLayer` of the package."""

    def __init__(self, layer: Any, counts: tuple[int, int], precision: str) -> None:
        super().__init__()
        self.layer = layer
        image_tokens, memory_tokens = counts
        self.own = ProjectedAttention(layer.self_attn, (image_tokens, image_tokens), precision)
        self.cross = ProjectedAttention(layer.cross_attn_image, (image_tokens, memory_tokens), precision)

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

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, attention: Attention, counts: tuple[int, int], precision: str) -> None:
        """counts: queries and keys at most."""
        super().__init__()
        self.heads = heads = attention.num_heads
        self.rotates = isinstance(attention, RoPEAttention)
        width = attention.internal_dim // heads
        order = torch.arange(attention.internal_dim)
        if self.rotates:
            side = round(counts[0] ** 0.5)
            turns = torch.view_as_real(attention.compute_cis(end_x=side, end_y=side))
            cosine, sine = turns.to(attention.q_proj.weight.device).unbind(-1)
            self.register_buffer("cosine", cosine, persistent=False)
            self.register_buffer("sine", sine, persistent=False)
            # In each head the first channels of all pairs, then the second ones
            order = order.view(heads, width // 2, 2).transpose(1, 2).flatten()
        self.query = _linear(attention.q_proj.weight[order] * width**-0.5, attention.q_proj.bias[order] * width**-0.5)
        self.key = _linear(attention.k_proj.weight[order], attention.k_proj.bias[order])
        shape = Shape(*counts, width, attention.kv_in_dim)
        self.kernel: Kernel = attention_kernel(attention.q_proj.weight.device, precision, shape)
        if self.kernel.narrow and shape.value_width < width:
            self.value: torch.nn.Module | None = None
            self.out = _value_and_output(attention)
        else:
            self.value, self.out = attention.v_proj, attention.out_proj

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, without_place: int = 0
    ) -> torch.Tensor:
        """Attend from tokens (n, query, channel) to tokens (n, key, channel); the last ones may be without place."""
        query, key = self._separate(self.query(query)), self._separate(self.key(key))
        if self.rotates:
            query = self._turn(query, query.shape[2])
            key = self._turn(key, key.shape[2] - without_place)
        values = value[:, None].to(query.dtype) if self.value is None else self._separate(self.value(value))
        attended = self.kernel.attend(query, key, values)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _separate(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, token, channel) as (n, head, token, channel)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _turn(self, tokens: torch.Tensor, placed: int) -> torch.Tensor:
        """Rotate the first `placed` tokens, some grids one after another, by the places of their pixels."""
        grids = tokens[:, :, :placed].unflatten(2, (-1, len(self.cosine)))
        first, second = grids.chunk(2, dim=-1)
        turned = torch.empty_like(tokens)
        into = turned[:, :, :placed].unflatten(2, (-1, len(self.cosine)))
        half = first.shape[-1]
        torch.sub(first * self.cosine, second * self.sine, out=into[..., :half])
        torch.add(first * self.sine, second * self.cosine, out=into[..., half:])
        turned[:, :, placed:] = tokens[:, :, placed:]
        return turned


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
