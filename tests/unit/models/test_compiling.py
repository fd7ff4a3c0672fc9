"""What torch would compile is one graph for each part; what its compiler makes of the graphs is not tried here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.models.in_transformers import loaded, saved
from tests.unit.models.official import SIZE, loaded_sam2, prompt

from volprompt.models import kernels
from volprompt.models.base import PromptableModel
from volprompt.models.engine import segment_volumes
from volprompt.models.sam import SamModel
from volprompt.models.segmented import LoadedVolume
from volprompt.settings.schemes import Scheme


@pytest.mark.parametrize(
    ("family", "large"), [("sam", False), ("sam", True), ("sam2", False), ("sam2", True), ("sam3", False)]
)
def test_parts_in_graphs_give_the_same_masks(
    family: str,
    large: bool,
    sam: SamModel,
    sam2_checkpoint: Path,
    tmp_path: Path,
    frames: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """large: with the kernels that a CPU takes for larger images."""
    if large:
        monkeypatch.setattr("volprompt.models.model.SMALLEST_IMAGE", 0)
        monkeypatch.setattr(kernels, "MANY_TIMES", 1)
        monkeypatch.setattr(kernels, "MANY_WINDOWS", 1)
    model: PromptableModel = sam if family == "sam" else loaded_sam2(sam2_checkpoint, attention="auto")
    if family == "sam3":
        model = loaded("sam3", saved("sam3", tmp_path))
    schemes = {"it": Scheme(predictor="image" if family == "sam" else "video", point="centroid")}
    given = [prompt("femur", 5, [(40.25, 20.5)], [1]), prompt("tibia", 5, [(52.0, 55.75)], [1])]
    volume = LoadedVolume("knee", model.prepare(frames), SIZE, {"it": given})
    (before,) = segment_volumes(model, [volume], schemes, 4)
    model.compile(backend="eager")
    (after,) = segment_volumes(model, [volume], schemes, 4)
    for structure, bits in before.masks["it"].items():
        assert bits.any()
        assert (bits == after.masks["it"][structure]).all()
