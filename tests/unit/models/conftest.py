"""Small models with random weights, and the packages' own predictors on the same weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2 as official_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from segment_anything import SamPredictor
from tests.unit.models.official import (
    CPU,
    DEPTH,
    SAM,
    SAM2,
    SIZE,
    answering,
    architectures_in,
    loaded_sam2,
    official_video_predictor,
    saved_sam2,
)

from volprompt.models import memory_tracking
from volprompt.models.loading import load_model
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.phantom.image import make_phantom


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Slices of a synthetic knee, uint8 (slice, y, x)."""
    phantom = make_phantom(7, shape=(DEPTH, SIZE[1], SIZE[0]), spacing=(5.0, 1.46, 1.9), contrast="random")
    image = phantom.image / phantom.image.max() * 255
    return np.stack([image[index, ::-1, ::-1].T for index in range(DEPTH)]).astype(np.uint8)


@pytest.fixture(scope="module")
def sam_predictor() -> SamPredictor:
    """The package's own predictor, on weights that have relative positions worth their name."""
    torch.manual_seed(1)
    module = answering(SamModel.build(str(SAM)), 1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.5)
    return SamPredictor(module)


@pytest.fixture(scope="module")
def sam(sam_predictor: SamPredictor, tmp_path_factory: pytest.TempPathFactory) -> SamModel:
    path = tmp_path_factory.mktemp("checkpoints") / "sam.pth"
    torch.save(sam_predictor.model.state_dict(), path)
    model = load_model({"family": "sam", "architecture": str(SAM)}, str(path), CPU)
    assert isinstance(model, SamModel)
    return model


@pytest.fixture(scope="module")
def sam2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_sam2(tmp_path_factory.mktemp("checkpoints") / "sam2.pt", memory=3)


@pytest.fixture(scope="module")
def sam2(sam2_checkpoint: Path) -> Sam2Model:
    return loaded_sam2(sam2_checkpoint)


@pytest.fixture(scope="module")
def official() -> Iterator[None]:
    """The package's build functions find the small architecture."""
    with architectures_in(SAM2.parent):
        yield


@pytest.fixture(scope="module")
def image_predictor(official: None, sam2_checkpoint: Path) -> SAM2ImagePredictor:
    predictor = SAM2ImagePredictor(official_sam2(SAM2.stem, str(sam2_checkpoint), device="cpu"))
    predictor._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]  # the class assumes 1024 pixels; these are for 128
    return predictor


@pytest.fixture(scope="module")
def video_predictor(official: None, sam2_checkpoint: Path) -> SAM2VideoPredictor:
    return official_video_predictor(SAM2.stem, sam2_checkpoint)


@pytest.fixture
def resized_in_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one thread torch resizes three masks (the package) and one (ours) by kernels that round differently; all else
    stays in one, which is faster."""
    resize, threads = torch.nn.functional.interpolate, torch.get_num_threads()

    def in_two_threads(*arguments: Any, **named: Any) -> torch.Tensor:
        torch.set_num_threads(2)
        try:
            return resize(*arguments, **named)
        finally:
            torch.set_num_threads(threads)

    monkeypatch.setattr(torch.nn.functional, "interpolate", in_two_threads)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts on several slices, and both directions, are a batch, which rounds otherwise; here each is one alone."""
    monkeypatch.setattr(memory_tracking, "batches_of_one_form", lambda items, *_: [[item] for item in items])
    monkeypatch.setattr(memory_tracking, "batches_of_steps", lambda steps, _: [[step] for step in steps])
