"""Products by oneDNN, against torch's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.unit.models.official import CPU, DEMO, SAM2
from torch.nn import Linear, functional
from torch.utils._python_dispatch import TorchDispatchMode

from volprompt.models import products
from volprompt.models.devices import Device
from volprompt.models.products import multiply, multiply_by_onednn
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model


@pytest.fixture
def faster() -> Iterator[None]:
    """As on a CPU on which oneDNN gains."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch was built without oneDNN")
    with mock.patch.object(products, "FASTER", True):
        yield


@pytest.mark.parametrize(
    ("facts", "gains"),
    [
        ("vendor_id : AuthenticAMD\nflags : fma avx2 avx512f avx512bw\n", True),
        ("vendor_id : AuthenticAMD\nflags : fma avx2\n", False),
        ("vendor_id : GenuineIntel\nflags : fma avx2 avx512f\n", False),
        (None, False),
    ],
)
@pytest.mark.usefixtures("faster")
def test_where_it_is_taken(facts: str | None, gains: bool, tmp_path: Path) -> None:
    """Where it was measured to gain; no facts where the system is not Linux."""
    if facts is not None:
        (tmp_path / "cpuinfo").write_text(facts)
    assert products._is_faster(tmp_path / "cpuinfo") == gains


class Operations(TorchDispatchMode):
    """The names of the operations that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.columns: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func.overloadpacket.__name__)
        if func.overloadpacket.__name__ == "_linear_pointwise":
            self.columns.append(args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gains", [True, False])
@pytest.mark.parametrize("count", [4, 4000], ids=["few", "many"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", ["in rows", "in columns", "every other row", "one of two heads", "its values"])
@pytest.mark.usefixtures("faster")
def test_products_are_those_of_torch(gains: bool, count: int, bias: bool, layout: str) -> None:
    torch.manual_seed(0)
    rows, columns, added = torch.randn(2, count, 32), torch.randn(48, 32), torch.randn(48) if bias else None
    if layout == "in columns":
        columns = columns.t().contiguous().t()
    if layout == "every other row":
        rows, columns = torch.randn(2, count, 64)[..., ::2], torch.randn(96, 32)[::2]
    if layout == "one of two heads":
        columns = torch.randn(48, 64)[:, :32]
    if layout == "its values":
        columns = torch.randn(32, 96)[:, :48].t()
    with mock.patch.object(products, "FASTER", gains), torch.no_grad(), Operations() as called:
        found = multiply(rows, columns, added)
    assert ("_linear_pointwise" in called.names) == (gains and count > 4)
    # With gaps it would be right as well, but not fast.
    assert all(given.is_contiguous() or given.t().is_contiguous() for given in called.columns)
    assert torch.allclose(found, functional.linear(rows, columns, added), atol=1e-4)


def kinds_of_layers(module: torch.nn.Module) -> list[type]:
    kinds = [type(part) for part in module.modules() if isinstance(part, Linear)]
    assert len(kinds) > 10
    return kinds


@pytest.mark.usefixtures("faster")
def test_layers_keep_their_weights() -> None:
    layers = torch.nn.Sequential(Linear(32, 48), torch.nn.ReLU(), Linear(48, 32))
    weights = layers.state_dict()
    tokens = torch.randn(4000, 32)
    with torch.no_grad():
        expected = layers(tokens)
        multiply_by_onednn(layers)
        with Operations() as called:
            found = layers(tokens)
    assert "_linear_pointwise" in called.names
    assert torch.allclose(found, expected, atol=1e-5)
    assert all((layers.state_dict()[name] == tensor).all() for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("size", "attention", "precision", "used"),
    [
        (256, "auto", "float32", True),
        (128, "auto", "float32", False),
        (256, "package", "float32", False),
        (256, "auto", "bfloat16", False),
    ],
)
def test_which_models_use_it(size: int, attention: Any, precision: str, used: bool) -> None:
    """Neither small ones, nor where the package's way is asked for, nor in bfloat16."""
    model: Any = Sam2Model(Sam2Model.build(str(SAM2), size), Device("cpu", precision, "CPU", attention))
    kinds = kinds_of_layers(model.module) + kinds_of_layers(model.tracking.attention)
    assert all((kind is not Linear) == used for kind in kinds)


def test_sam_uses_it() -> None:
    model: Any = SamModel(SamModel.build(str(DEMO / "sam_demo.yaml")), CPU)
    assert Linear not in kinds_of_layers(model.module)


@pytest.mark.usefixtures("faster")
def test_other_types_are_torchs() -> None:
    """Under autocast, say, or with weights of double precision."""
    for kind in (torch.bfloat16, torch.float64):
        rows, columns = torch.ones(4000, 32, dtype=kind), torch.ones(48, 32, dtype=kind)
        assert (multiply(rows, columns) == 32).all()
