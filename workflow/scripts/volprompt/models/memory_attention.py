"""Attention to memory, of SAM 2 and those that grew from it, with narrow values, and rotary positions without copies.

Values: a memory token is narrower (64) than the attention that reads it (256), and its value has no position. So
softmax(QK)(MW + b) = (softmax(QK)M)W + b: scores are multiplied with the tokens themselves, and the value's and the
output's projections become one. Exact but for rounding.

Positions: the packages turn pairs of neighbouring channels in copies. In float32 on a CPU that is done in place, in
complex numbers. Elsewhere they are turned in real numbers, which bfloat16 and a compiler can take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Linear, Module, Parameter

from volprompt.models.kernels import AttentionSettings, Kernel, Shape, attention_kernel


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The weights of an attention.

    turns: rotary positions of queries and of keys, complex (token, pair of channels); those of keys are of the tokens
    of one memory. None without.
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    heads: int
    turns: tuple[torch.Tensor, torch.Tensor] | None


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The weights of a layer: attention of a slice to itself and to memory, and what follows them.

    norms: before each of the three; placed_itself, placed_queries, placed_keys: where positions are added.
    """

    itself: AttentionWeights
    memory: AttentionWeights
    feed_forward: Module
    norms: tuple[Module, Module, Module]
    placed_itself: bool = False
    placed_queries: bool = False
    placed_keys: bool = True


class FeedForward(Module):
    """Two linear layers with an activation between them."""

    def __init__(self, first: Module, activation: Callable[[torch.Tensor], torch.Tensor], second: Module) -> None:
        super().__init__()
        self.first, self.activation, self.second = first, activation, second

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        activated: torch.Tensor = self.second(self.activation(self.first(tokens)))
        return activated


class MemoryAttention(Module):
    """A package's attention to memory, batch first, with its weights; to be made once they are loaded."""

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        norm: Module,
        placed_at_input: bool,
        counts: tuple[int, int],
        settings: AttentionSettings,
    ) -> None:
        """norm: after the last layer; counts: tokens of a slice, and tokens that memory holds at most."""
        super().__init__()
        self.placed_at_input = placed_at_input
        self.norm = norm
        self.layers: Any = torch.nn.ModuleList(_Layer(layer, counts, settings) for layer in layers)

    @property
    def kernels(self) -> dict[str, str]:
        """The kernels of the first layer, with the reasons."""
        layer = self.layers[0]
        return {"memory": str(layer.memory.kernel), "slice": str(layer.itself.kernel)}

    def forward(
        self,
        coarse: torch.Tensor,
        own: torch.Tensor,
        memory: torch.Tensor,
        positions: torch.Tensor,
        pointer_tokens: int,
        neighbours: int = 1,
    ) -> torch.Tensor:
        """Return the coarsest level, (n, channel, y, x), with memory in it.

        own: positions of the slice's pixels, (1, pixel, channel); memory, positions: (n, token, channel), those of
        object pointers last; neighbours: objects that follow each other on one slice, as many everywhere. They are the
        same until memory is read, so that their first self-attention is done once.
        """
        seen = coarse[::neighbours].flatten(2).transpose(1, 2)
        own, memory, placed = (each.to(seen.dtype) for each in (own, memory, memory + positions))
        if self.placed_at_input:
            seen = seen + 0.1 * own
        for layer in self.layers:
            seen = layer.attend_to_itself(seen, own)
            if len(seen) < len(coarse):
                seen = seen[:, None].expand(-1, neighbours, -1, -1).flatten(0, 1)
            seen = layer.attend_to_memory(seen, own, memory, placed, pointer_tokens)
        return self.norm(seen).transpose(1, 2).reshape(coarse.shape)


class _Layer(Module):
    """A layer of a package's attention to memory."""

    def __init__(self, weights: LayerWeights, counts: tuple[int, int], settings: AttentionSettings) -> None:
        super().__init__()
        slice_tokens, memory_tokens = counts
        self.itself = ProjectedAttention(weights.itself, (slice_tokens, slice_tokens), settings)
        self.memory = ProjectedAttention(weights.memory, (slice_tokens, memory_tokens), settings)
        self.feed_forward = weights.feed_forward
        self.norm1, self.norm2, self.norm3 = weights.norms
        self.placed_itself = weights.placed_itself
        self.placed_queries, self.placed_keys = weights.placed_queries, weights.placed_keys

    def attend_to_itself(self, seen: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(seen)
        placed = normed + own if self.placed_itself else normed
        return seen + self.itself(placed, placed, normed)

    def attend_to_memory(
        self, seen: torch.Tensor, own: torch.Tensor, memory: torch.Tensor, placed: torch.Tensor, pointers: int
    ) -> torch.Tensor:
        normed = self.norm2(seen)
        query = normed + own if self.placed_queries else normed
        key = placed if self.placed_keys else memory
        seen = seen + self.memory(query, key, memory, pointers)
        return seen + self.feed_forward(self.norm3(seen))


class ProjectedAttention(Module):
    """An attention with a kernel of choice."""

    def __init__(self, weights: AttentionWeights, counts: tuple[int, int], settings: AttentionSettings) -> None:
        """counts: queries and keys at most."""
        super().__init__()
        self.heads = weights.heads
        self.query, self.key = weights.query, weights.key
        self.turn_queries: _Turns | None = None
        self.turn_keys: _Turns | None = None
        width = self.query.out_features // self.heads
        if weights.turns is not None:
            self.turn_queries, self.turn_keys = (_Turns(turns, self.heads, settings) for turns in weights.turns)
            self.query = self.turn_queries.projection_of(self.query)
            self.key = self.turn_keys.projection_of(self.key)
        narrow = weights.value.in_features
        self.kernel: Kernel = attention_kernel(settings, Shape(*counts, width, narrow, heads=self.heads))
        if self.kernel.narrow and narrow < width:
            self.value: Module | None = None
            self.out = _value_and_output(weights)
        else:
            self.value, self.out = weights.value, weights.out

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, without_place: int = 0
    ) -> torch.Tensor:
        """Attend from tokens (n, query, channel) to tokens (n, key, channel); the last ones may be without place."""
        queries = self._place(self.turn_queries, self.query(query), query.shape[1])
        keys = self._place(self.turn_keys, self.key(key), key.shape[1] - without_place)
        values = value[:, None].to(queries.dtype) if self.value is None else _separate(self.value(value), self.heads)
        attended = self.kernel.attend(queries, keys, values)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _place(self, turn: _Turns | None, projected: torch.Tensor, placed: int) -> torch.Tensor:
        """Turn the first tokens, and return all: (n, head, token, channel)."""
        return _separate(projected, self.heads) if turn is None else turn(projected, placed)


class _Turns(Module):
    """Rotary positions: how far the pairs of channels of each token are turned, the same in each head.

    In complex numbers one for each pair; in real ones two for each channel, for which each pair is needed in its order
    and the other way round, (a, b) and (b, a). Both come from one projection.
    """

    turns: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, turns: torch.Tensor, heads: int, settings: AttentionSettings) -> None:
        super().__init__()
        self.tokens, self.heads = len(turns), heads
        self.in_place = settings.in_complex_numbers
        turns = turns.to(settings.device)
        if self.in_place:
            self.register_buffer("turns", turns[:, None], persistent=False)
            return
        cosine, sine = torch.view_as_real(turns).repeat_interleave(2, dim=1).unbind(-1)
        signs = torch.tensor([-1.0, 1.0], device=settings.device).repeat(cosine.shape[1] // 2)
        self.register_buffer("cosine", cosine[:, None], persistent=False)
        self.register_buffer("sine", (sine * signs)[:, None], persistent=False)

    def projection_of(self, projection: Linear) -> Linear:
        """A projection of the same weights whose result can be turned."""
        return projection if self.in_place else _with_swapped_pairs(projection)

    def forward(self, projected: torch.Tensor, placed: int) -> torch.Tensor:
        """Turn the first `placed` tokens, memories one after another, and return all: (n, head, token, channel)."""
        memories = projected[:, :placed].unflatten(1, (-1, self.tokens))
        if self.in_place:
            torch.view_as_complex(memories.unflatten(-1, (self.heads, -1, 2))).mul_(self.turns)
            return _separate(projected, self.heads)
        plain, swapped = (half.unflatten(-1, (self.heads, -1)) for half in memories.chunk(2, dim=-1))
        turned = torch.addcmul(plain * self.cosine, swapped, self.sine).to(projected.dtype).flatten(1, 2)
        others = projected[:, placed:].chunk(2, dim=-1)[0].unflatten(-1, (self.heads, -1))
        return torch.cat([turned, others], dim=1).transpose(1, 2)


def _separate(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """(n, token, channel) as (n, head, token, channel)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


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


def _value_and_output(weights: AttentionWeights) -> Linear:
    """The projections of values and of the output as one, of tokens weighted by each head."""
    value = weights.value.weight.unflatten(0, (weights.heads, -1))
    output = weights.out.weight.unflatten(1, (weights.heads, -1))
    weight = torch.einsum("ohd,hdk->ohk", output, value).flatten(1)
    return _linear(weight, weights.out(weights.value.bias))
