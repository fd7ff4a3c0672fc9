"""Products of matrices on a CPU in float32, by oneDNN.

torch leaves them to MKL, which on CPUs that are not Intel's does without AVX-512: there oneDNN takes half the time. Its
convolutions are oneDNN's in any case.
"""

from __future__ import annotations

import torch
from torch.nn import Linear, functional

# Whether torch was built with oneDNN, as it is for x86. The operation is what torch's compiler calls.
AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# Products of two numbers below which the way to oneDNN takes longer than it saves.
FEW_PRODUCTS = 2**21


def multiply(rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply rows (..., k) with each of the columns (n, k), and add the bias (n): (..., n). Not for gradients."""
    few = rows.numel() * len(columns) < FEW_PRODUCTS
    if few or not AVAILABLE or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return functional.linear(rows, columns, bias)
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
