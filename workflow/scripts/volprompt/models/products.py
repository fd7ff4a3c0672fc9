"""Products of matrices on an AMD CPU in float32, by oneDNN.

torch leaves them to MKL, which does without AVX-512 on CPUs that are not Intel's: there oneDNN takes half the time. Its
convolutions are oneDNN's in any case.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import Linear, functional

CPU_FACTS = Path("/proc/cpuinfo")


def _is_faster(facts: Path = CPU_FACTS) -> bool:
    """Whether oneDNN is there and the CPU is one on which it was measured to gain. facts: as Linux tells them."""
    # The operation is what torch's compiler calls.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and facts.is_file() and "AuthenticAMD" in (text := facts.read_text()) and "avx512f" in text


FASTER = _is_faster()
# Products of two numbers below which the way to oneDNN takes longer than it saves.
FEW_PRODUCTS = 2**21


def multiply(rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply rows (..., k) with each of the columns (n, k), and add the bias (n): (..., n). Not for gradients."""
    few = rows.numel() * len(columns) < FEW_PRODUCTS
    if few or not FASTER or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return functional.linear(rows, columns, bias)
    if not (columns.is_contiguous() or columns.t().is_contiguous()):
        # With gaps in memory, as the heads of a projection have them, oneDNN takes 1000 times as long.
        columns = columns.contiguous()
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
    return product


class _OneDnnLinear(Linear):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return multiply(tokens, self.weight, self.bias)


def multiply_by_onednn(module: torch.nn.Module) -> None:
    """Let all linear layers of a module compute their products with `multiply`; they keep their weights."""
    for part in module.modules():
        if type(part) is Linear:
            part.__class__ = _OneDnnLinear
