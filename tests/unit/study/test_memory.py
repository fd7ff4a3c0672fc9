"""What jobs ask for, by the sizes of models and volumes; numbers are worked out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from volprompt.checkpoints.catalogue import CatalogueEntry
from volprompt.models.engine import FEATURES_KEPT
from volprompt.settings.config import Experiment, Inference
from volprompt.settings.schemes import Scheme
from volprompt.study.memory import (
    KEPT,
    UNKNOWN,
    convert_memory_mb,
    largest_frames,
    segment_memory_mb,
    weights_bytes,
)
from volprompt.study.models import Checkpoint
from volprompt.volumes.convert import save_nifti

KNEE = (160, 384, 384)  # 23.6 million voxels
POINT = {"predictor": "image", "point": "centroid"}
VIDEO = {"predictor": "video", "point": "centroid"}


def asked(weights: int, *schemes: dict[str, Any], family: str = "sam2", **changes: Any) -> int:
    """Memory of a job with two structures on knees. weights: in MB."""
    parsed = {str(number): Scheme(**scheme) for number, scheme in enumerate(schemes)}
    checkpoint = Checkpoint("m", family, "any", "m.pt", "", False, changes.pop("image_size", None))
    study: Any = SimpleNamespace(
        settings=SimpleNamespace(schemes=parsed, inference=Inference(**changes)),
        experiments={"e": Experiment(models=["m"], schemes=list(parsed))},
        checkpoints={"m": checkpoint},
        scored_structures=["femur", "tibia"],
    )
    return segment_memory_mb(study, "e", "m", weights * 1_000_000, KNEE)


def test_memory_of_a_segmentation() -> None:
    # torch 1400, weights 390, work 2000, features 32 x 17, frames 3 x 160 x 1.05, memory 28, voxels 12 x 23.6
    assert asked(156, POINT, VIDEO) == 5200
    # weights 6411, features 32 x 4.2, no memory
    assert asked(2565, POINT, family="sam") == 10_800


@pytest.mark.parametrize(
    "schemes",
    [
        [{**VIDEO, "slice": "nearest"}],
        [{**VIDEO, "slice": ["middle", {"index": 3}]}],
        [VIDEO, {**VIDEO, "slice": {"fraction": 0.25}}],
        [{**POINT, "propagate": "box", "slice": "largest"}],
    ],
)
def test_features_wait_where_objects_set_out_from_several_slices(schemes: list[dict[str, Any]]) -> None:
    # 160 x 17 in place of 32 x 17
    assert 7200 <= asked(156, *schemes) <= 7400
    assert asked(156, {**VIDEO, "slice": {"index": 3}}) == asked(156, VIDEO)


def test_corrections_keep_everything() -> None:
    # features 160 x 17, memory 2 x 160 x 0.53, voxels 40 x 23.6
    assert asked(156, {**VIDEO, "corrections": {"clicks": 3}}) == 8200
    # Image schemes are corrected slice by slice: voxels 40 x 23.6 alone
    assert asked(156, {**POINT, "corrections": {"clicks": 3}}) == 5800


def test_small_images_go_through_the_encoder_in_batches() -> None:
    # work 2000 / 4 x 8, features, frames and memory a quarter
    assert asked(156, VIDEO, image_size=512) == 6400
    assert asked(156, VIDEO, image_size=512, batch_size=1) == 2900
    assert KEPT == FEATURES_KEPT


def test_the_largest_volume_of_a_shard(tmp_path: Path) -> None:
    shard = tmp_path / "000"
    assert largest_frames(shard) == UNKNOWN
    shard.mkdir()
    assert largest_frames(shard) == UNKNOWN
    for name, shape in (("a", (3, 4, 5)), ("b", (30, 40, 50)), ("c", (9, 9, 9))):
        save_nifti(np.zeros(shape, np.uint8), np.eye(4), shard / f"{name}_frames.nii")
    (shard / "b_reference.nii.gz").write_bytes(bytes(100_000))
    assert largest_frames(shard) == (30, 40, 50)
    for name in ("a", "b", "c"):
        (shard / f"{name}_frames.nii").unlink()
    (shard / "d_frames.nii").touch()  # cut off
    assert largest_frames(shard) == UNKNOWN


def test_memory_of_a_conversion(tmp_path: Path) -> None:
    assert convert_memory_mb([]) == convert_memory_mb([tmp_path / "none.nii.gz"]) == 600
    small, large, series = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "series"
    small.write_bytes(bytes(1000))
    with large.open("wb") as stream:
        stream.truncate(26_300_000)
    assert convert_memory_mb([small, large]) == 1800  # 600 + 22 x 2 x 26.3
    (series / "empty").mkdir(parents=True)
    assert convert_memory_mb([series / "empty"]) == 600
    for number in range(160):
        with (series / "empty" / f"{number}.dcm").open("wb") as stream:
            stream.truncate(300_000)
    assert convert_memory_mb([series / "empty"]) == 2800  # 600 + 22 x 2 x 48


def test_size_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "m.pt"
    checkpoint = Checkpoint("m", "sam2", "any", str(file), "", True)
    entry = CatalogueEntry(
        url="https://example.org/m.pt", sha256="0" * 64, bytes=7, licence="MIT", family="sam2", architecture="any"
    )
    assert weights_bytes(checkpoint, {}) == 0
    assert weights_bytes(checkpoint, {"m.pt": entry}) == 7
    file.write_bytes(b"123")
    assert weights_bytes(checkpoint, {"m.pt": entry}) == 3
