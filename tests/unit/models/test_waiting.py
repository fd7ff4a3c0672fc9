"""Nothing in a step waits for the device: seen on CUDA tensors that have shapes only, so that no GPU is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tests.unit.models.in_transformers import small_settings
from tests.unit.models.official import SAM, SAM2
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from volprompt.models import memory_plan, sam, sam2, sam2_inputs, transformers_model
from volprompt.models.base import PromptableModel, pack_bits
from volprompt.models.devices import Device
from volprompt.models.edgetam import EdgeTamModel
from volprompt.models.features import SliceFeatures
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.sam3 import Sam3Model
from volprompt.models.tracked import TrackedObject
from volprompt.models.transformers_model import TransformersModel
from volprompt.prompts.schemes import ObjectPrompt

# Without a GPU torch switches its autocast to bfloat16 off.
CUDA = Device("cuda", "float32", "a GPU that is none")
DEPTH, SIZE = 8, (40, 48)
aten = torch.ops.aten
# What makes the host wait until the device has computed a value.
QUESTIONS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero}


class Waits(TorchDispatchMode):
    """Lists what copies between host and device, and what asks the device for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        places = {
            each.device.type for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.ndim
        }
        boolean = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if boolean or func.overloadpacket in QUESTIONS:
            self.found.append(str(func))
        result = func(*args, **(kwargs or {}))
        made = {each.device.type for each in tree_leaves(result) if isinstance(each, torch.Tensor)}
        if len(places | made) > 1:
            self.found.append(str(func))
        return result


@contextmanager
def fake_cuda() -> Iterator[Waits]:
    """Uploads go through `to_device`, which copies from pinned memory and does not wait; here they are no copies."""
    waits = Waits()

    def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
        return torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device=device)

    with FakeTensorMode(allow_non_fake_inputs=True), waits, torch.no_grad(), ExitStack() as patches:
        patches.enter_context(mock.patch.object(torch.nn.Module, "to", lambda module, device: module))
        for module in (sam, sam2, sam2_inputs, memory_plan, transformers_model):
            patches.enter_context(mock.patch.object(module, "to_device", upload))
        yield waits


def on_cuda(module: torch.nn.Module) -> torch.nn.Module:
    """A module with weights on the device, which have shapes only; within `fake_cuda`."""
    for part in module.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                setattr(part, name, torch.nn.Parameter(fake) if name in part._parameters else fake)
    return module


def prepared(model: PromptableModel, depth: int) -> np.ndarray:
    """Frames as `prepare` returns them; what resizes tensors cannot be called on those that have shapes only."""
    if isinstance(model, TransformersModel):
        return np.zeros((depth, model.image_size, model.image_size), np.uint8)
    return model.prepare(np.zeros((depth, *SIZE), np.uint8))


def prompt(structure: str, index: int, points: Sequence[tuple[float, float]]) -> ObjectPrompt:
    labels = np.array([1] + [0] * (len(points) - 1))
    return ObjectPrompt(structure, index, np.array(points, np.float32).reshape(-1, 2), labels, None)


ADAPTERS: dict[str, type[PromptableModel]] = {
    "sam": SamModel,
    "sam2": Sam2Model,
    "sam3": Sam3Model,
    "edgetam": EdgeTamModel,
}


def built(family: str, folder: Path) -> torch.nn.Module:
    """A small module of a family."""
    path = {"sam": SAM, "sam2": SAM2}.get(family, folder / "config.json")
    if path.parent == folder:
        path.write_text(json.dumps(small_settings(family)))
    return ADAPTERS[family].build(str(path))


@pytest.mark.parametrize(("family", "reset"), [("sam2", False), ("sam2", True), ("sam3", False), ("edgetam", False)])
def test_tracking_neither_copies_nor_waits(tmp_path: Path, family: str, reset: bool) -> None:
    """Two volumes, four objects, from their prompts to the ends and back."""
    module = built(family, tmp_path)
    depth = DEPTH if family == "sam2" else 6  # tensors that have shapes only are slow
    with fake_cuda() as waits:
        model = ADAPTERS[family](on_cuda(module), CUDA)
        frames = prepared(model, depth)
        tracked = []
        for start in (2, 4):
            features = SliceFeatures(
                lambda slices: model.encode(frames[slices]), range(depth), depth, 4, depth, lasting=True
            )
            for structure, points in (("femur", [(20.0, 20.0)]), ("tibia", [(9.0, 9.0), (30.0, 30.0)])):
                masks = torch.zeros((depth, SIZE[0], SIZE[1] // 8), dtype=torch.uint8, device="cuda")
                confidence = torch.zeros((2, depth), device="cuda")
                tracked.append(
                    TrackedObject([prompt(structure, start, points)], features, SIZE, masks, confidence, clicks=0)
                )
        counted = []
        for needed in model.tracker().track(tracked, reset):
            counted.append(list(waits.found))
            for features in {each for each, _ in needed}:
                features.require([index for each, index in needed if each is features])
            waits.found.clear()
        counted.append(list(waits.found))
    made, *steps = counted
    assert made, "what is made with the model is copied"
    assert len(steps) >= depth - 3
    assert not any(steps)


@pytest.mark.parametrize(
    ("family", "kind"),
    [*product(["sam", "sam2"], ["points", "box", "logits"]), ("sam3", "logits"), ("edgetam", "logits")],
)
def test_encoding_and_decoding_neither_copy_nor_wait(tmp_path: Path, family: str, kind: str) -> None:
    module = built(family, tmp_path)
    given = [prompt("femur", 0, [(20.0, 20.0), (3.0, 3.0)]), prompt("tibia", 1, [(9.0, 9.0), (30.0, 30.0)])]
    if kind == "box":
        given = [replace(each, box=np.array([2.0, 3.0, 30.0, 31.0])) for each in given]
    with fake_cuda() as waits:
        model = ADAPTERS[family](on_cuda(module), CUDA)
        frames = prepared(model, 2)
        waits.found.clear()
        levels = model.encode(frames)
        logits = model.decode(levels, given, SIZE, "best").logits if kind == "logits" else None
        decoded = model.decode(levels, given, SIZE, False, logits)
        pack_bits(decoded.masks)
    assert decoded.masks.shape == (2, *SIZE)
    assert not waits.found


def test_waiting_is_noticed() -> None:
    """Every kind of it."""
    with fake_cuda() as waits:
        values, host = torch.zeros(4, device="cuda"), torch.zeros(4)
        for number, work in enumerate(
            [
                lambda: values[[1, 2]],
                lambda: values.__setitem__([1, 2], 0.0),
                lambda: values[values > 0],
                lambda: values.cpu(),
                lambda: host.to("cuda"),
                lambda: values.copy_(host),
                lambda: torch.tensor([1.0, 2.0], device="cuda"),
                lambda: bool(values.any()),
                lambda: float(values[0]),
            ]
        ):
            waits.found.clear()
            with suppress(DataDependentOutputException, DynamicOutputShapeException):
                work()
            assert waits.found, number
