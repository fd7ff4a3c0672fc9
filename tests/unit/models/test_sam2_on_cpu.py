"""SAM 2's encoder and decoder as a CPU computes them, against the package's on the demo's trained weights."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from sam2.modeling.backbones.hieradet import MultiScaleAttention
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from tests.unit.models.official import DEMO, SAM2, loaded_sam2

from volprompt.models import kernels
from volprompt.models.devices import Device
from volprompt.models.kernels import AttentionSettings, Kernel, Shape, attention_kernel
from volprompt.models.sam2 import Sam2Model
from volprompt.phantom.image import make_phantom
from volprompt.prompts.schemes import ObjectPrompt

SIZE = (96, 96)


def demo_model(attention: Literal["auto", "package"], precision: str = "float32") -> Sam2Model:
    checkpoint = DEMO / "checkpoints" / "demo_sam2.pt"
    return loaded_sam2(checkpoint, precision, DEMO / "sam2_demo.yaml", attention)


def knees() -> np.ndarray:
    """Four slices through the middle of a phantom, uint8."""
    image = make_phantom(901, (16, *SIZE), (7.0, 1.46, 1.46)).image[6:10]
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_and_masks_equal_the_packages(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features to rounding, and masks but for a pixel in a thousand, of windows and prompts by kernels of their own."""
    used: set[str] = set()

    def noted(settings: AttentionSettings, shape: Shape) -> Kernel:
        kernel = attention_kernel(settings, shape)
        used.add(kernel.name)
        return kernel

    monkeypatch.setattr(kernels, "attention_kernel", noted)
    frames = knees()
    prompts = [ObjectPrompt("femur", index, np.array([[48.0, 30.0]]), np.array([1]), None) for index in range(4)]
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for model, results in ((demo_model("auto", precision), found), (demo_model("package", precision), expected)):
        with model.inference():
            levels = model.encode(frames)
            decoded = model.decode(levels, prompts, SIZE, False)
        results += [*(level.float() for level in levels), decoded.logits, decoded.masks]
    assert "columns" in used
    assert ("batch" in used) == (precision == "float32")
    tolerance = 1e-4 if precision == "float32" else 0.25
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()
    assert expected[-1].any()
    assert (found[-1] != expected[-1]).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("size", "attention", "own"), [(256, "auto", True), (128, "auto", False), (256, "package", False)]
)
def test_which_models_have_it(size: int, attention: Any, own: bool) -> None:
    """Neither small ones, nor where the package's way is asked for; never the attention that has rotary positions."""
    model = Sam2Model(Sam2Model.build(str(SAM2), size), Device("cpu", "float32", "CPU", attention))
    changed = {type(part) for part in model.module.modules() if "forward" in vars(part)}
    assert changed.isdisjoint({RoPEAttention})
    assert ({MultiScaleAttention, Attention} <= changed) == own
    convolution = model.module.image_encoder.trunk.patch_embed.proj
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last) == own
