"""The packages' own predictors on small models, and prompts for both them and the adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from skimage import measure

from volprompt.models.devices import Device
from volprompt.models.loading import load_model
from volprompt.models.sam2 import Sam2Model
from volprompt.models.sam2_parts import memory_rules
from volprompt.prompts.schemes import ObjectPrompt

REPOSITORY = Path(__file__).parents[3]
DEMO = REPOSITORY / "demo"
SAM, SAM2 = REPOSITORY / "tests" / "small_sam.yaml", REPOSITORY / "tests" / "small_sam2.yaml"
CPU = Device("cpu", "float32", "CPU")
SIZE = (72, 96)  # not square: a swap of height and width must show
DEPTH = 12
# An object's prompt, or its prompts on several slices.
Given = ObjectPrompt | list[ObjectPrompt]


# Settings of memory that the published configurations do not have, or not all of them.
MEMORY_SETTINGS: dict[str, dict[str, Any]] = {
    "at most two prompted slices in attention": {"max_cond_frames_in_attn": 2},
    "at most three prompted slices in attention": {"max_cond_frames_in_attn": 3},
    "every second slice": {"memory_temporal_stride_for_eval": 2},
    "pointers of the future, with sign": {"only_obj_ptrs_in_the_past_for_eval": False},
    "pointers of the future, without sign": {
        "only_obj_ptrs_in_the_past_for_eval": False,
        "use_signed_tpos_enc_to_obj_ptrs": False,
    },
    "masks through the decoder": {"use_mask_input_as_output_without_sam": False},
    "pointers without their distance, as SAM 2.0": {"add_tpos_enc_to_obj_ptrs": False},
    "one mask while tracking": {"multimask_output_for_tracking": False},
}


def answering(module: torch.nn.Module, seed: int, memory: float = 1.0) -> torch.nn.Module:
    """Make a randomly initialised model answer prompts with masks that differ; `memory` scales what it remembers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "hypernetworks" in name or "iou" in name or "pos_embed" in name or "_embed" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if "mem" in name:
                parameter.mul_(memory)
            if name.endswith("gamma") and memory > 1:
                parameter.fill_(1)
        score = getattr(module, "sam_mask_decoder", module)
        if hasattr(score, "pred_obj_score_head"):
            score.pred_obj_score_head.layers[-1].bias.fill_(3.0)
    return module


def saved_sam2(path: Path, memory: float) -> Path:
    torch.manual_seed(2)
    module = answering(Sam2Model.build(str(SAM2)), 2, memory)
    torch.save({"model": module.state_dict()}, path)
    return path


def loaded_sam2(
    checkpoint: Path,
    precision: str = "float32",
    architecture: Path = SAM2,
    attention: Literal["auto", "package"] = "auto",
) -> Sam2Model:
    settings = {"family": "sam2", "architecture": str(architecture)}
    model = load_model(settings, str(checkpoint), Device("cpu", precision, "CPU", attention))
    assert isinstance(model, Sam2Model)
    return model


@contextmanager
def architectures_in(folder: Path) -> Iterator[None]:
    """Let the package's build functions find architectures in a folder."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.2"):
        yield
    GlobalHydra.instance().hydra = before


def official_video_predictor(architecture: str, checkpoint: Path, **settings: Any) -> SAM2VideoPredictor:
    """The package's predictor. It keeps the features of one frame; here those of all, which every object, direction
    and test would have it encode again."""
    predictor = build_sam2_video_predictor(architecture, str(checkpoint), device="cpu", **settings)
    predictor.fill_hole_area = 0  # the package fills holes only where its CUDA extension is built
    encode, encoded = predictor.forward_image, {}

    def remembered(frame: torch.Tensor) -> Any:
        key = torch.get_num_threads(), frame.numpy().tobytes()  # with other threads features are rounded otherwise
        if key not in encoded:
            encoded[key] = encode(frame)
        return encoded[key]

    predictor.forward_image = remembered
    return predictor


def trained_sam2() -> tuple[Sam2Model, SAM2VideoPredictor]:
    """The demo's own checkpoint, in ours and in the package's predictor."""
    checkpoint = DEMO / "checkpoints" / "demo_sam2.pt"
    with architectures_in(DEMO):
        predictor = official_video_predictor("sam2_demo", checkpoint)
    return loaded_sam2(checkpoint, architecture=DEMO / "sam2_demo.yaml"), predictor


def prompt(
    structure: str,
    index: int,
    points: list[tuple[float, float]],
    labels: list[int],
    box: list[float] | None = None,
    mask: np.ndarray | None = None,
) -> ObjectPrompt:
    return ObjectPrompt(
        structure,
        index,
        np.array(points, dtype=np.float32).reshape(-1, 2),
        np.array(labels, dtype=np.int32),
        None if box is None else np.array(box, dtype=np.float32),
        mask,
    )


def ring(centre: tuple[int, int], outer: float, inner: float) -> np.ndarray:
    """A mask with a hole, bool (y, x)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    return (distance <= outer) & (distance >= inner)


POINT = [prompt("femur", 5, [(40.25, 20.5)], [1]), prompt("tibia", 5, [(52.0, 55.75)], [1])]
POINTS = [
    prompt("femur", 5, [(40.25, 20.5), (52.0, 55.75), (12.0, 30.0)], [1, 0, 0]),
    prompt("tibia", 5, [(52.0, 55.75), (40.25, 20.5), (12.0, 30.0)], [1, 0, 0]),
]
BOX = [prompt("femur", 5, [], [], [22, 3, 61, 33]), prompt("tibia", 5, [], [], [30, 40, 70, 71])]
BOX_AND_POINT = [prompt("femur", 5, [(40.25, 20.5)], [1], [22, 3, 61, 33])]
IMAGE_PROMPTS = {"point": POINT, "points": POINTS, "box": BOX, "box and point": BOX_AND_POINT}


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def assert_same(ours: np.ndarray, official: np.ndarray) -> None:
    assert 0.005 < official.mean() < 0.995, "the oracle's mask is trivial; the comparison would prove nothing"
    assert dice(ours, official) >= 0.999


def best(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return masks[np.argmax(scores)].astype(bool)


def official_prompt(given: ObjectPrompt) -> dict:
    points = {"point_coords": given.points, "point_labels": given.labels} if len(given.points) else {}
    return {**points, "box": given.box}


def resized(model: Sam2Model, frames: np.ndarray) -> torch.Tensor:
    """Frames as the model's encoder is given them (n, 3, y, x)."""
    grey = model.resize(torch.from_numpy(frames)[:, None].float() / 255)
    return (grey.expand(-1, 3, -1, -1) - model.mean) / model.std


@contextmanager
def loud_pointers(*modules: torch.nn.Module) -> Iterator[None]:
    """Models in which masks depend on object pointers: among so many tokens of masks they have to be large."""
    weights = [module.get_parameter("obj_ptr_proj.layers.2.weight") for module in modules]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1000)
    yield
    with torch.no_grad():
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)


@contextmanager
def set_to(settings: dict[str, Any], model: Sam2Model, predictor: SAM2VideoPredictor) -> Iterator[None]:
    """A model and the package's predictor with other settings of memory."""
    with mock.patch.multiple(model.module, **settings), mock.patch.multiple(predictor, **settings):
        rules = memory_rules(model.module)
        with (
            mock.patch.object(model.tracking, "rules", rules),
            mock.patch.object(model, "head_start", rules.head_start),
        ):
            yield


def eight_connected(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the package's CUDA extension gives, by its documentation: labels, and at each pixel its region's area."""
    labels = np.zeros(masks.shape, np.int32)
    areas = np.zeros(masks.shape, np.int32)
    for number, mask in enumerate(masks[:, 0].numpy()):
        labels[number, 0] = measure.label(mask, connectivity=2)
        for region in measure.regionprops(labels[number, 0]):
            areas[number, 0][labels[number, 0] == region.label] = region.area
    return torch.from_numpy(labels), torch.from_numpy(areas)
