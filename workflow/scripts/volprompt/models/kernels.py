"""Which kernel computes an attention: a small table by device, precision and shape, with the reasons.

`scaled_dot_product_attention` would choose among fused kernels by itself. The choice is made here, so that it is known,
the same for every job of a kind, and recorded in the run table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from volprompt.models import products

# Scores that a CPU makes at a time: those of float32 take 16 MB, about what its last cache holds for a core or two.
SCORES_AT_ONCE = 2**22
# Scores of an object from which rows of them pay on a CPU; below it the fused kernel is as fast.
MANY_SCORES = 2**23
MANY_SCORES_BY_ONEDNN = 2**16
# Keys that are few, and how many times as many queries have to be there for them to be the columns.
FEW_KEYS, MANY_TIMES = 16, 16
# Tokens of windows that are small, how many of them have to be there, and the numbers of a head's keys that are few.
SMALL_WINDOW, MANY_WINDOWS, FEW_NUMBERS = 64, 256, 1536

BY_SHAPE = "by the shape of each call"

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Kernel:
    """A way to compute softmax(query key^T / sqrt(width)) value.

    attend: of queries (n, head, query, width), keys (n, head, key, width) and values (n, 1 or head, key, value width)
    the result (n, head, query, value width); narrow: whether values can be narrower than keys; reason: why it is taken.
    """

    name: str
    narrow: bool
    reason: str
    attend: Attend

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Shape:
    """What is known of an attention before it is computed: tokens, and widths of keys and values in each head.

    windows: that are computed side by side, if their number is known.
    heads: of each of them.
    """

    queries: int
    keys: int
    width: int
    value_width: int
    windows: int = 1
    heads: int = 1


@dataclass(frozen=True)
class AttentionSettings:
    """Where attention is computed, in float32 or bfloat16, and whether by the kernel that the package would have."""

    device: torch.device
    precision: str
    as_package: bool = False

    @property
    def in_complex_numbers(self) -> bool:
        """Whether rotary positions are complex numbers, as a CPU multiplies them fastest; else real ones."""
        return self.device.type == "cpu" and self.precision == "float32"


def attention_kernel(settings: AttentionSettings, shape: Shape) -> Kernel:
    """The kernel for an attention of about this shape."""
    if settings.as_package:
        return Kernel("fused", False, "as the package", _fused)
    if settings.device.type == "cuda":
        if settings.precision == "bfloat16":
            reason = "the fastest on tensor cores; takes values as wide as keys"
            return Kernel("flash", False, reason, partial(_on_gpu, SDPBackend.FLASH_ATTENTION))
        reason = "the one fused kernel for float32; takes narrow values"
        return Kernel("memory-efficient", True, reason, partial(_on_gpu, SDPBackend.EFFICIENT_ATTENTION))
    if shape.keys <= FEW_KEYS and shape.queries >= MANY_TIMES * shape.keys:
        return Kernel("columns", True, "few keys for many queries, which are the columns of scores", _by_columns)
    if settings.precision == "bfloat16":
        return Kernel("fused", False, "the fastest for bfloat16, with values as wide as keys", _fused)
    if _many_small_windows(shape):
        return Kernel("batch", True, "many small windows, whose products are one batch", _as_batch)
    if shape.queries * shape.keys < (MANY_SCORES_BY_ONEDNN if products.FASTER else MANY_SCORES):
        return Kernel("fused", False, "few scores, which fit into a cache in any case", _fused)
    if shape.value_width < shape.width:
        return Kernel("rows", True, "some queries after another, with narrow values: less to multiply", _by_rows)
    if products.FASTER and shape.heads == 1:
        return Kernel("rows", True, "some queries after another: faster products than in the fused kernel", _by_rows)
    return Kernel("fused", False, "values are as wide as keys, so that rows gain nothing", _fused)


def attend_by_shape(
    settings: AttentionSettings, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Compute an attention whose shape is not known before, as `Kernel.attend` does; on a GPU torch has the choice."""
    if query.device.type == "cuda":
        return _fused(query, key, value)
    windows, heads, queries, width = query.shape
    shape = Shape(queries, key.shape[2], width, value.shape[3], windows, heads)
    return attention_kernel(settings, shape).attend(query, key, value)


def _many_small_windows(shape: Shape) -> bool:
    small = max(shape.queries, shape.keys) <= SMALL_WINDOW and shape.windows >= MANY_WINDOWS
    # The heads of a window lie interleaved, and a batch of products copies their keys.
    return small and (shape.heads == 1 or shape.keys * shape.width <= FEW_NUMBERS)


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(query, key, value)


def _on_gpu(first: SDPBackend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The kernel `first`, or where a GPU does not have it, one that every GPU has."""
    with sdpa_kernel([first, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
        return _fused(query, key, value.expand(-1, query.shape[1], -1, -1))


def _by_columns(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scores with queries along the last axis, where a CPU takes many at a time; in float32, as the fused kernel."""
    with torch.autocast(query.device.type, enabled=False):
        scores = (key.float() * query.shape[3] ** -0.5) @ query.float().transpose(2, 3)
        attended = value.float().transpose(2, 3) @ torch.softmax(scores, dim=2)
        return attended.transpose(2, 3).to(query.dtype)


def _as_batch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.softmax((query * query.shape[3] ** -0.5) @ key.transpose(2, 3), dim=3) @ value


def _by_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Whole rows of scores, of so many queries at a time as a CPU's cache holds."""
    value = value.expand(-1, query.shape[1], -1, -1)
    result = query.new_empty((*query.shape[:3], value.shape[3]))
    query = query * query.shape[3] ** -0.5
    step = max(1, SCORES_AT_ONCE // key.shape[2])
    one_by_one = zip(*(each.flatten(0, 1) for each in (query, key, value, result)), strict=True)
    for queries, keys, values, into in one_by_one:
        keys, channels = keys.contiguous(), values.contiguous().t()  # once, and not for each product
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            into[some] = products.multiply(torch.softmax(products.multiply(queries[some], keys), dim=-1), channels)
    return result
