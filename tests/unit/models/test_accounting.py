"""What the engine keeps, when it decodes, and how seconds are shared out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tests.unit.models.official import DEPTH, SIZE, loaded_sam2, prompt

from volprompt.models import engine, volume_work
from volprompt.models.clock import Clock
from volprompt.models.engine import segment_volumes
from volprompt.models.features import SliceFeatures, gather
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.models.volume_work import VolumeWork
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import Scheme

IMAGE = Scheme(predictor="image", point="centroid")
VIDEO = Scheme(predictor="video", point="centroid")


def femur(index: int) -> ObjectPrompt:
    return prompt("femur", index, [(40.25, 20.5)], [1])


def tibia(index: int) -> ObjectPrompt:
    return prompt("tibia", index, [(52.0, 55.75)], [1])


def test_a_batch_uses_a_slice_as_often_as_it_wants_it() -> None:
    features = SliceFeatures(lambda slices: [torch.ones(len(slices), 1, 2, 2)], [0, 0, 1], 2, 2, 9)
    features.require([0, 1])
    assert gather([(features, 0), (features, 0), (features, 1)])[0].shape == (3, 1, 2, 2)
    assert not features._kept


@pytest.mark.parametrize(("volumes", "each"), [(1, 6), (2, 3), (4, 2)])
def test_the_features_kept_are_divided_among_volumes(
    sam: SamModel, frames: np.ndarray, volumes: int, each: int
) -> None:
    given = [LoadedVolume(f"v{n}", sam.prepare(frames[:1]), SIZE, {"image": [femur(0)]}) for n in range(volumes)]
    with (
        mock.patch.multiple(engine, FEATURES_KEPT=6, FEATURES_KEPT_EACH=2),
        mock.patch.object(engine, "VolumeWork", wraps=VolumeWork) as work,
    ):
        segment_volumes(sam, given, {"image": IMAGE}, 1)
    assert [call.kwargs["kept"] for call in work.call_args_list] == [each] * volumes


def test_prompts_are_decoded_on_the_way(sam: SamModel, frames: np.ndarray) -> None:
    """Four prompts at a time, of two structures: the features of the other slices are not there yet."""
    did: list[tuple[str, int]] = []

    def encode(slices: np.ndarray) -> list[torch.Tensor]:
        did.append(("encode", len(slices)))
        return SamModel.encode(sam, slices)

    def decode(levels: Any, prompts: Sequence[ObjectPrompt], *rest: Any) -> Any:
        did.append(("decode", len(prompts)))
        return SamModel.decode(sam, levels, prompts, *rest)

    given = {"image": [each(index) for index in range(6) for each in (femur, tibia)]}
    with (
        mock.patch.object(volume_work, "DECODER_BATCH", 4),
        mock.patch.object(sam, "encode", encode),
        mock.patch.object(sam, "decode", decode),
    ):
        segment_volumes(sam, [LoadedVolume("knee", sam.prepare(frames), SIZE, given)], {"image": IMAGE}, 1)
    assert did == [("encode", 1), ("encode", 1), ("decode", 4)] * 3


def test_a_crowded_volume_decodes_before_it_forgets(sam2: Sam2Model, frames: np.ndarray) -> None:
    """Slices that wait for their prompts are decoded before their features make room: none is encoded twice."""
    given = {"image": [femur(index) for index in range(DEPTH)], "video": [femur(0), tibia(DEPTH - 1)]}
    with (
        mock.patch.multiple(engine, FEATURES_KEPT=3, FEATURES_KEPT_EACH=3),
        mock.patch.object(sam2, "encode", wraps=sam2.encode) as encode,
    ):
        volume = LoadedVolume("knee", frames, SIZE, given)
        (few,) = segment_volumes(sam2, [volume], {"image": IMAGE, "video": VIDEO}, 1)
        encoded = sum(len(call.args[0]) for call in encode.call_args_list)
    (many,) = segment_volumes(sam2, [volume], {"image": IMAGE, "video": VIDEO}, 1)
    assert (few.masks["image"]["femur"] == many.masks["image"]["femur"]).all()
    assert encoded <= 2 * DEPTH


def timed(model: Sam2Model, frames: np.ndarray, seconds: dict[tuple[str, ...], float]) -> list[Segmented]:
    """Two volumes, of 12 and 6 slices, with one object and with two; the clock shows these seconds."""
    schemes = {"one": VIDEO, "two": VIDEO, "image": IMAGE}
    volumes = [
        LoadedVolume(name, frames[:depth], SIZE, {"one": [femur(2)], "two": [femur(2), tibia(2)], "image": [femur(2)]})
        for name, depth in (("long", 12), ("short", 6))
    ]
    with mock.patch.object(Clock, "seconds", lambda clock, key: seconds.get(key, 0.0)):
        return segment_volumes(model, volumes, schemes, 4)


def test_seconds_are_shared_by_slices_and_objects(sam2: Sam2Model, frames: np.ndarray) -> None:
    """108 seconds of tracking three objects over 12 + 6 slices are two for each object and slice."""
    clock = {
        ("track", "0"): 108.0,
        ("encode", "long"): 5.0,
        ("encode", "short"): 3.0,
        ("decode", "long", "image", "0"): 7.0,
    }
    long, short = timed(sam2, frames, clock)
    assert long.seconds_prompt == {"one": 24.0, "two": 48.0, "image": 7.0}
    assert short.seconds_prompt == {"one": 12.0, "two": 24.0, "image": 0.0}
    assert (long.seconds_encode, short.seconds_encode) == (5.0, 3.0)


def test_events_of_a_gpu_count_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            pass

        def elapsed_time(self, end: Any) -> float:
            return 1500.0

    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    clock = Clock(torch.device("cuda"))
    assert clock.timed(("encode",), lambda: 3) == 3
    clock.timed(("encode",), lambda: 3)
    assert not waited
    assert clock.seconds(("encode",)) == 3.0
    assert waited


@pytest.mark.parametrize(("precision", "allowed"), [("bfloat16", True), ("float32", False)])
def test_tf32_goes_with_bfloat16(sam2_checkpoint: Path, precision: str, allowed: bool) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in flags]
    try:
        loaded_sam2(sam2_checkpoint, precision)
        assert [each.allow_tf32 for each in flags] == [allowed, allowed]
    finally:
        for each, value in zip(flags, before, strict=True):
            each.allow_tf32 = value
