"""SAM 3's tracker and EdgeTAM against transformers' own models, on the same small random weights.

One object alone equals the package's in every voxel, with a loud memory; a batch rounds otherwise, and is compared on a
quiet one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.models.in_transformers import ADAPTERS, PackageSession, images_of, loaded, package_model, saved
from tests.unit.models.official import BOX, IMAGE_PROMPTS, POINT, POINTS, SIZE, assert_same, prompt
from tests.unit.models.test_equivalence import VIDEO_PROMPTS, decoded, dice, tracked
from tests.unit.models.test_rounds_of_corrections import REFERENCES, clicks_of, corrected, rounds_of
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    Sam2ImageProcessor,
    Sam2VideoVideoProcessor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
)

from volprompt.checkpoints.catalogue import CheckpointError
from volprompt.checkpoints.load import load_into
from volprompt.checkpoints.model_settings import read_model_settings
from volprompt.errors import VolpromptError
from volprompt.models.base import without_initialisation
from volprompt.models.devices import Device
from volprompt.models.sam3 import Sam3Model
from volprompt.models.transformers_model import TransformersModel

FAMILIES = sorted(ADAPTERS)
LOUD = 2.0


class Pair:
    """A model in our adapter and in the package."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.ours, self.module = loaded(family, folder), package_model(family, folder)

    def session(self, frames: np.ndarray, given: Any, reset: bool = False) -> PackageSession:
        return PackageSession(self.family, self.module, images_of(self.ours, frames), given, reset)


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Pair]:
    """Each pair of models is made once."""
    made: dict[tuple[str, float], Pair] = {}

    def pair(family: str, memory: float = LOUD) -> Pair:
        if (family, memory) not in made:
            made[family, memory] = Pair(family, saved(family, tmp_path_factory.mktemp(family), memory))
        return made[family, memory]

    return pair


def image_model(pair: Pair) -> Any:
    """The package's model for images, with the same weights.

    SAM 3's image model of transformers 5.23 adds the embedding "no memory" to the last of its four levels, which
    nothing reads. With the three levels that are read it is added where the video model, and SAM 2, add it.
    """
    settings = pair.module.config.to_dict()
    parts = {name: settings[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    for part in ("prompt_encoder_config", "mask_decoder_config"):
        parts[part].pop("model_type")
    if pair.family == "sam3":
        parts["vision_config"]["scale_factors"] = [4.0, 2.0, 1.0]
        model: Any = Sam3TrackerModel(Sam3TrackerConfig(**parts)).eval()
    else:
        model = EdgeTamModel(EdgeTamConfig(**parts)).eval()
    assert not model.load_state_dict(pair.module.state_dict(), strict=False).missing_keys
    return model


# Equality with the package's models


@pytest.mark.parametrize("family", FAMILIES)
def test_images_equal_the_packages_image_model(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    pair = pair_of(family, 1.0)
    model, images = image_model(pair), images_of(pair.ours, frames)[5:6]
    scale = torch.tensor([pair.ours.image_size / SIZE[1], pair.ours.image_size / SIZE[0]])
    for prompts in IMAGE_PROMPTS.values():
        for multimask in (False, "first", "best"):
            for given, mask in zip(prompts, decoded(pair.ours, frames, prompts, multimask), strict=True):
                more: dict[str, Any] = {}
                if len(given.points):
                    more["input_points"] = (torch.from_numpy(given.points) * scale)[None, None]
                    more["input_labels"] = torch.from_numpy(given.labels)[None, None]
                if given.box is not None:
                    more["input_boxes"] = (torch.from_numpy(given.box).view(2, 2) * scale).reshape(1, 1, 4)
                with torch.no_grad():
                    found = model(pixel_values=images, multimask_output=bool(multimask), **more)
                best = 0 if multimask == "first" else int(found.iou_scores.argmax())
                logits = torch.nn.functional.interpolate(found.pred_masks[0, :, best : best + 1], SIZE, mode="bilinear")
                theirs = (logits[0, 0] > 0).numpy()
                assert theirs.any()
                assert (mask != theirs).mean() < 0.001


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("kind", VIDEO_PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tracking_equals_the_packages_video_model(
    pair_of: Callable, family: str, frames: np.ndarray, kind: str
) -> None:
    """Forwards and in reverse; the second object with directions apart."""
    pair = pair_of(family)
    for reset, given in zip((False, True), VIDEO_PROMPTS[kind], strict=False):
        (ours,) = tracked(pair.ours, frames, [given], reset, batch_size=1)
        theirs = pair.session(frames, given, reset).tracked()
        assert 0.005 < theirs.mean() < 0.995
        assert (ours == theirs).all()


@contextmanager
def shifted_presence(modules: Sequence[Any], by: float) -> Iterator[None]:
    """Models that take objects for absent on more slices."""
    biases = [module.mask_decoder.pred_obj_score_head.proj_out.bias for module in modules]
    with torch.no_grad():
        for bias in biases:
            bias.sub_(by)
        yield
        for bias in biases:
            bias.add_(by)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("family", FAMILIES)
def test_absent_objects_equal_the_packages(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    """Where the model takes the object for absent the mask is empty, and memory and pointers say so."""
    pair = pair_of(family)
    mask = prompt("femur", 5, [], [], mask=np.zeros(SIZE, bool))
    for given in (POINT[0], mask):
        score = corrected(pair.ours, frames, {"it": given}, REFERENCES, "video", clicks=0, batch_size=1).confidence
        others = np.delete(score["it"]["femur"].object_score, 5)
        with shifted_presence([pair.ours.module, pair.module], float(np.median(others))):
            (ours,) = tracked(pair.ours, frames, [given], batch_size=1)
            theirs = pair.session(frames, given).tracked()
        assert (ours == theirs).all()
        filled = ours.any(axis=(1, 2))
        assert filled.any()
        assert not filled.all()


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_pointer_of_a_mask_equals_the_packages(pair_of: Callable, family: str) -> None:
    """A mask that is a prompt has a pointer, unless it is empty or the decoder takes its object for absent."""
    pair = pair_of(family)
    parts, side = pair.ours.tracking, pair.ours.image_size
    channels, (height, width) = pair.module.hidden_dim, parts.grid
    torch.manual_seed(0)
    coarse = torch.randn(1, channels, height, width)
    fine = [torch.randn(1, channels // over, height * step, width * step) for over, step in ((8, 4), (4, 2))]
    absent = pair.module.no_object_pointer
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    for given, by, is_absent in ((mask, -1e3, False), (mask, 1e3, True), (0 * mask, -1e3, True)):
        with shifted_presence([pair.ours.module, pair.module], by), torch.no_grad():
            ours = parts.take_mask(coarse, fine, given).pointer
            theirs = pair.module._use_mask_as_output(coarse, fine, given).object_pointer
        torch.testing.assert_close(ours, theirs.reshape(ours.shape))
        assert torch.equal(ours, absent.expand_as(ours)) == is_absent


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
def test_more_prompted_slices_than_are_attended_to(pair_of: Callable, frames: np.ndarray) -> None:
    """SAM 3 attends to the four closest prompted slices, and to the pointers of all of them."""
    pair = pair_of("sam3")
    given = [prompt("femur", index, [(40.25 + index, 20.5)], [1]) for index in (0, 2, 3, 5, 8, 9, 11)]
    (ours,) = tracked(pair.ours, frames, [given], batch_size=1)
    assert (ours == pair.session(frames, given).tracked()).all()
    assert pair.ours.tracking.rules.prompted == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_has_a_say(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    """Without what is remembered, the masks would be others."""
    pair = pair_of(family)
    (before,) = tracked(pair.ours, frames, [POINT[0]])
    for part in ("positions_in_time", "memory_positions"):
        silent = torch.zeros_like(getattr(pair.ours.tracking, part))
        with mock.patch.object(pair.ours.tracking, part, silent):
            (after,) = tracked(pair.ours, frames, [POINT[0]])
        assert (before[5] == after[5]).all()
        assert dice(before, after) < 0.998 or (family == "edgetam" and part == "memory_positions")


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("memory", [1.0, LOUD])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_corrections_equal_the_packages_parts(
    pair_of: Callable, family: str, frames: np.ndarray, reset: bool, memory: float
) -> None:
    """Five rounds on slices of their own: more than the slices that SAM 3 attends to as prompted ones."""
    pair = pair_of(family, memory)
    found = corrected(pair.ours, frames, {"it": BOX[:1]}, REFERENCES, "video", clicks=5, reset=reset, batch_size=1)
    session = pair.session(frames, BOX[0], reset)
    rounds = rounds_of(found, "it", "femur")
    assert (rounds[0] == session.tracked()).all()
    assert len(rounds) == 6
    slices = set()
    for number in range(1, 6):
        (click,) = clicks_of(found, "it", "femur", number)
        slices.add(click.slice)
        theirs = session.click(click)
        assert (rounds[number] == theirs).all()
    assert len(slices) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_in_lockstep_equal_objects_alone(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    pair = pair_of(family, 1.0)
    given = [*POINT, POINTS[1], BOX[0], prompt("femur", 8, [(44.0, 22.0)], [1])]
    together = tracked(pair.ours, frames, given, batch_size=4)
    for each, ours in zip(given, together, strict=True):
        assert_same(ours, pair.session(frames, each).tracked())


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_prepared_as_by_the_packages_processors(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    ours = pair_of(family, 1.0).ours
    size = {"height": ours.image_size, "width": ours.image_size}
    colours = {"image_mean": list(ours.mean), "image_std": list(ours.std)}
    colour = np.repeat(frames[..., None], 3, axis=-1)
    expected = Sam2ImageProcessor(size=size, **colours)(list(colour), return_tensors="pt").pixel_values
    of_video = Sam2VideoVideoProcessor(size=size, **colours)(list(colour), return_tensors="pt").pixel_values_videos[0]
    for each in (expected, of_video):
        assert torch.allclose(images_of(ours, frames).expand(-1, 3, -1, -1), each, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_close(pair_of: Callable, family: str, frames: np.ndarray) -> None:
    pair = pair_of(family, 1.0)
    half = loaded(family, pair.folder, Device("cpu", "bfloat16", "CPU"))
    (exact,), (rounded,) = (decoded(model, frames, POINT[:1]) for model in (pair.ours, half))
    assert dice(exact, rounded) > 0.95
    (mask,) = tracked(half, frames, BOX[:1])
    assert mask.any()


# Files


def test_the_file_of_all_of_sam_3(pair_of: Callable, tmp_path: Path) -> None:
    """The tracker's tensors are taken out of it: encoder of the detector, neck and heads of their own."""
    folder = pair_of("sam3", 1.0).folder
    tensors = load_file(folder / "model.safetensors")
    whole = {"detector_model.detr_encoder.weight": torch.ones(1)}
    for name, tensor in tensors.items():
        if name.startswith("vision_encoder.backbone."):
            whole[f"detector_model.{name}"] = tensor
        elif name.startswith("vision_encoder.neck."):
            whole[name.replace("vision_encoder.neck.", "tracker_neck.")] = tensor
            whole[f"detector_model.{name}"] = torch.zeros_like(tensor)  # of the detector's own neck
        elif not name.startswith("shared_image_embedding"):
            whole[f"tracker_model.{name}"] = tensor
    save_file(whole, tmp_path / "whole.safetensors")
    module = Sam3Model.build(str(folder / "config.json"))
    load_into(module, tmp_path / "whole.safetensors", "sam3", Sam3Model.weights_of)
    for name, tensor in module.state_dict().items():
        assert (tensor == tensors[name]).all(), name


def test_a_lost_tensor_of_sam_3_is_named(pair_of: Callable, tmp_path: Path) -> None:
    folder = pair_of("sam3", 1.0).folder
    tensors = load_file(folder / "model.safetensors")
    del tensors["memory_encoder.projection.bias"]
    save_file(tensors, tmp_path / "part.safetensors")
    module = Sam3Model.build(str(folder / "config.json"))
    with pytest.raises(CheckpointError, match=r"1 missing, first memory_encoder\.projection\.bias"):
        load_into(module, tmp_path / "part.safetensors", "sam3", Sam3Model.weights_of)


@pytest.mark.parametrize(("family", "parameters"), [("sam3", 465_782_146), ("edgetam", 13_895_794)])
def test_the_published_models(family: str, parameters: int) -> None:
    with without_initialisation(), torch.device("meta"):
        module = ADAPTERS[family].build(family)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_fetched(family: str, tmp_path: Path) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    with mock.patch.multiple(socket.socket, connect=refuse, connect_ex=refuse):
        assert isinstance(loaded(family, saved(family, tmp_path)), TransformersModel)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_package_is_told_to_be_offline_before_it_is_imported(family: str) -> None:
    """It looks only then. Nothing of the tests' own surroundings may have said so."""
    code = (
        f"import volprompt.models.{family}, huggingface_hub.constants as said, transformers.utils.hub as hub, sys; "
        "sys.exit(not (said.HF_HUB_OFFLINE and hub.is_offline_mode() and said.HF_HUB_DISABLE_TELEMETRY))"
    )
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    surroundings = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def settings_with(path: Path, family: str, place: str, name: str, value: Any) -> Path:
    """The settings of a small model in a file, changed in one place: keys of parts with dots between them."""
    settings = read_model_settings(saved(family, path) / "config.json")
    part = settings
    for key in filter(None, place.split(".")):
        part = part[key]
    part[name] = value
    (path / "config.json").write_text(json.dumps(settings))
    return path / "config.json"


ENCODER = "vision_config.backbone_config"


@pytest.mark.parametrize(
    ("family", "place", "name", "value", "message"),
    [
        ("sam3", "", "auto_map", {"AutoModel": "evil--code.Model"}, "`auto_map` would fetch or run something"),
        ("sam3", "", "_attn_implementation", "someone/kernel", "`_attn_implementation` would fetch or run"),
        ("sam3", "vision_config", "quantization_config", {"quant_method": "x"}, "`quantization_config` would"),
        ("sam3", "", "model_type", "llama", "describes a 'llama'; expected one of"),
        ("sam3", ENCODER, "model_type", "vit", "describes a 'vit'"),
        ("edgetam", ENCODER, "architecture", "hf-hub:someone/model", "'hf-hub:someone/model' is no name"),
        ("edgetam", ENCODER, "architecture", "local-dir:/tmp/model", "is no name of an image encoder of timm"),
        ("edgetam", ENCODER, "model_args", {"checkpoint_path": "evil.pt"}, "found checkpoint_path"),
    ],
)
def test_settings_name_no_code(tmp_path: Path, family: str, place: str, name: str, value: Any, message: str) -> None:
    path = settings_with(tmp_path, family, place, name, value)
    if name == "_attn_implementation":
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(VolpromptError, match=message) as caught:
        ADAPTERS[family].build(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1]", "expected the settings of a model"),
        ('{"model_type": "sam3_video"}', "expected the settings of SAM 3's tracker"),
        ('{"model_type": "sam3_tracker_video", "num_maskmem": "many"}', "no model can be built from this file"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(VolpromptError, match=message):
        Sam3Model.build(str(path))


def test_settings_of_all_of_sam_3(tmp_path: Path) -> None:
    settings = read_model_settings(saved("sam3", tmp_path) / "config.json")
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({"model_type": "sam3_video", "tracker_config": settings}))
    assert read_model_settings(path) == settings
