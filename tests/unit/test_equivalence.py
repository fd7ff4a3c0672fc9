"""The adapters against the packages' own predictors, on the same weights: masks equal, Dice at least 0.999.

Small models with random weights, changed until a difference can show: objects are present, masks are neither empty nor
full, and memory has a say in them. With memory that loud, tracking is chaotic: one object alone must equal the official
predictor in every voxel, while the rounding of a batch of objects is compared on weights as they were drawn.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from sam2.build_sam import build_sam2 as official_sam2
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from segment_anything import SamPredictor

from volprompt.devices import Device
from volprompt.models import load_model
from volprompt.models.base import ArchitectureError, build_from_yaml
from volprompt.models.sam import SamModel, build_sam
from volprompt.models.sam2 import Sam2Model, build_sam2
from volprompt.phantom import make_phantom
from volprompt.schemes import ObjectPrompt

DEMO = Path(__file__).parents[2] / "demo"
CPU = Device("cpu", "float32", "CPU")
SIZE = (72, 96)  # not square: a swap of height and width must show
DEPTH = 12


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Slices of a synthetic knee, uint8 (slice, y, x)."""
    phantom = make_phantom(7, shape=(DEPTH, SIZE[1], SIZE[0]), spacing=(5.0, 1.46, 1.9), contrast="random")
    image = phantom.image / phantom.image.max() * 255
    return np.stack([image[index, ::-1, ::-1].T for index in range(DEPTH)]).astype(np.uint8)


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


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> SamModel:
    torch.manual_seed(1)
    module = answering(build_sam(str(DEMO / "sam_demo.yaml")), 1)
    path = tmp_path_factory.mktemp("checkpoints") / "sam.pth"
    torch.save(module.state_dict(), path)
    model = load_model({"family": "sam", "architecture": str(DEMO / "sam_demo.yaml")}, str(path), CPU)
    assert isinstance(model, SamModel)
    return model


def saved_sam2(path: Path, memory: float) -> Path:
    torch.manual_seed(2)
    module = answering(build_sam2(str(DEMO / "sam2_demo.yaml")), 2, memory)
    torch.save({"model": module.state_dict()}, path)
    return path


def loaded_sam2(checkpoint: Path, precision: str = "float32") -> Sam2Model:
    settings = {"family": "sam2", "architecture": str(DEMO / "sam2_demo.yaml")}
    model = load_model(settings, str(checkpoint), Device("cpu", precision, "CPU"))
    assert isinstance(model, Sam2Model)
    return model


@pytest.fixture(scope="module")
def sam2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_sam2(tmp_path_factory.mktemp("checkpoints") / "sam2.pt", memory=3)


@pytest.fixture(scope="module")
def sam2(sam2_checkpoint: Path) -> Sam2Model:
    return loaded_sam2(sam2_checkpoint)


@pytest.fixture(scope="module")
def official(sam2_checkpoint: Path) -> Iterator[None]:
    """Let the package's build functions find the demo's configuration."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(DEMO), version_base="1.2"):
        yield
    initialize_config_module("sam2", version_base="1.2")


@pytest.fixture(scope="module")
def image_predictor(official: None, sam2_checkpoint: Path) -> SAM2ImagePredictor:
    predictor = SAM2ImagePredictor(official_sam2("sam2_demo", str(sam2_checkpoint), device="cpu"))
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]  # the class assumes 1024 pixels; these are for 256
    return predictor


@pytest.fixture(scope="module")
def video_predictor(official: None, sam2_checkpoint: Path) -> SAM2VideoPredictor:
    predictor = build_sam2_video_predictor("sam2_demo", str(sam2_checkpoint), device="cpu")
    predictor.fill_hole_area = 0  # the package fills holes only where its CUDA extension is built
    return predictor


def prompt(
    structure: str, index: int, points: list[tuple[float, float]], labels: list[int], box: list[float] | None = None
) -> ObjectPrompt:
    return ObjectPrompt(
        structure,
        index,
        np.array(points, dtype=np.float32).reshape(-1, 2),
        np.array(labels, dtype=np.int32),
        None if box is None else np.array(box, dtype=np.float32),
    )


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


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", IMAGE_PROMPTS)
def test_sam_equals_sam_predictor(sam: SamModel, frames: np.ndarray, kind: str, multimask: bool) -> None:
    features = sam.encode(frames, list(range(DEPTH)), batch_size=3)
    predictor = SamPredictor(sam.module)
    predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    decoded = list(sam.decode(features, IMAGE_PROMPTS[kind], SIZE, multimask))
    assert [given.structure for given, _ in decoded] == [given.structure for given in IMAGE_PROMPTS[kind]]
    for given, mask in decoded:
        masks, scores, _ = predictor.predict(**official_prompt(given), multimask_output=multimask)
        assert_same(mask, best(masks, scores))


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", IMAGE_PROMPTS)
def test_sam2_equals_image_predictor(
    sam2: Sam2Model, image_predictor: SAM2ImagePredictor, frames: np.ndarray, kind: str, multimask: bool
) -> None:
    features = sam2.encode(frames, list(range(DEPTH)), batch_size=5)
    predictor = image_predictor
    predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    for given, mask in sam2.decode(features, IMAGE_PROMPTS[kind], SIZE, multimask):
        masks, scores, _ = predictor.predict(**official_prompt(given), multimask_output=multimask)
        assert_same(mask, best(masks, scores))


def test_prompts_of_many_slices_come_back_with_their_own_masks(sam2: Sam2Model, frames: np.ndarray) -> None:
    prompts = [prompt(name, i, [(40.0 + i, 20.0 + i)], [1]) for i in (9, 2, 5) for name in ("femur", "tibia")]
    together = {
        (p.structure, p.slice): m for p, m in sam2.decode(sam2.encode(frames, [2, 5, 9], 2), prompts, SIZE, False)
    }
    assert set(together) == {(given.structure, given.slice) for given in prompts}
    for given in prompts:
        features = sam2.encode(frames, [given.slice], 1)
        ((_, alone),) = sam2.decode(features, [given], SIZE, False)
        assert dice(together[given.structure, given.slice], alone) >= 0.999


def resized(model: Sam2Model, frames: np.ndarray) -> torch.Tensor:
    """Frames as the model's encoder is given them (n, 3, y, x)."""
    return model.normalize(model.resize(torch.from_numpy(frames)[:, None].float() / 255).expand(-1, 3, -1, -1))


def official_tracks(
    predictor: SAM2VideoPredictor, images: torch.Tensor, given: ObjectPrompt, reset: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Forward and reverse with the official class on frames that are already resized: slice, mask bool (y, x)."""
    loaded = (images.clone(), *SIZE)
    with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
        state = predictor.init_state("frames")

    def add() -> None:
        points = {"points": given.points, "labels": given.labels} if len(given.points) else {}
        predictor.add_new_points_or_box(state, given.slice, 1, box=given.box, **points)

    add()
    for index, _, logits in predictor.propagate_in_video(state, start_frame_idx=given.slice):
        yield index, (logits[0, 0] > 0).numpy()
    if reset:
        predictor.reset_state(state)
        add()
    for index, _, logits in predictor.propagate_in_video(state, start_frame_idx=given.slice, reverse=True):
        yield index, (logits[0, 0] > 0).numpy()


VIDEO_PROMPTS = OrderedDict(
    point=POINT,
    points=POINTS,
    box=BOX,
    first_slice=[prompt("femur", 0, [(40.25, 20.5)], [1])],
    last_slice=[prompt("femur", DEPTH - 1, [(40.25, 20.5)], [1])],
    different_slices=[prompt("femur", 3, [(40.25, 20.5)], [1]), prompt("tibia", 9, [(52.0, 55.75)], [1])],
    mixed_lengths=[POINT[0], POINTS[1], BOX[0]],
)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", VIDEO_PROMPTS)
def test_tracking_equals_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, kind: str, reset: bool
) -> None:
    features = sam2.encode(frames, list(range(DEPTH)), batch_size=1)
    images = resized(sam2, frames)
    for given in VIDEO_PROMPTS[kind]:
        (ours,) = sam2.track(features, [given], SIZE, reset)
        official = np.zeros_like(ours)
        for index, found in official_tracks(video_predictor, images, given, reset):
            official[index] = found
        assert_same(ours, official)
        assert (ours == official).all()


@pytest.mark.parametrize("reset", [False, True])
def test_objects_in_lockstep_equal_objects_alone(tmp_path: Path, frames: np.ndarray, reset: bool) -> None:
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    features = model.encode(frames, list(range(DEPTH)), batch_size=4)
    prompts = [POINT[0], POINTS[1], BOX[0], prompt("patella", 9, [(12.0, 30.0)], [1])]
    together = model.track(features, prompts, SIZE, reset)
    for given, mask in zip(prompts, together, strict=True):
        (alone,) = model.track(features, [given], SIZE, reset)
        assert_same(mask, alone)


@pytest.mark.parametrize("reset", [False, True])
def test_trained_model_in_lockstep_equals_video_predictor(official: None, frames: np.ndarray, reset: bool) -> None:
    """The demo's own checkpoint, all objects as one batch."""
    checkpoint = DEMO / "checkpoints" / "demo_sam2.pt"
    model = loaded_sam2(checkpoint)
    predictor = build_sam2_video_predictor("sam2_demo", str(checkpoint), device="cpu")
    predictor.fill_hole_area = 0
    images = resized(model, frames)
    prompts = [*POINT, *POINTS]
    together = model.track(model.encode(frames, list(range(DEPTH)), batch_size=4), prompts, SIZE, reset)
    for given, mask in zip(prompts, together, strict=True):
        official_mask = np.zeros_like(mask)
        for index, found in official_tracks(predictor, images, given, reset):
            official_mask[index] = found
        assert_same(mask, official_mask)


def test_reset_changes_the_reverse_pass_only(sam2: Sam2Model, frames: np.ndarray) -> None:
    features = sam2.encode(frames, list(range(DEPTH)), batch_size=4)
    (shared,) = sam2.track(features, POINT[:1], SIZE, False)
    (reset,) = sam2.track(features, POINT[:1], SIZE, True)
    assert (shared[5:] == reset[5:]).all()
    assert (shared[:5] != reset[:5]).any()


def test_one_slice_volume(sam2: Sam2Model, frames: np.ndarray) -> None:
    features = sam2.encode(frames[:1], [0], 1)
    (mask,) = sam2.track(features, [prompt("femur", 0, [(40.25, 20.5)], [1])], SIZE, False)
    assert mask.shape == (1, *SIZE)


def test_resizing_is_that_of_the_image_predictor(
    sam2: Sam2Model, image_predictor: SAM2ImagePredictor, frames: np.ndarray
) -> None:
    """One grey channel resized and repeated equals the package's transform of an RGB image."""
    expected = image_predictor._transforms(np.repeat(frames[5][..., None], 3, axis=-1))
    assert torch.allclose(resized(sam2, frames[5:6])[0], expected, atol=1e-6)


def test_one_grey_channel_resizes_like_rgb_in_sam(sam: SamModel, frames: np.ndarray) -> None:
    rgb = sam.transform.apply_image(np.repeat(frames[5][..., None], 3, axis=-1))
    grey = np.asarray(Image.fromarray(frames[5]).resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BILINEAR))
    assert (rgb == grey[..., None]).all()


def test_bfloat16_stays_close_to_float32(tmp_path: Path, frames: np.ndarray) -> None:
    """bfloat16 runs through on a CPU, image and video, and gives masks of the same shape and much the same content."""
    checkpoint = saved_sam2(tmp_path / "sam2.pt", memory=1)
    half, full = loaded_sam2(checkpoint, "bfloat16"), loaded_sam2(checkpoint)
    rounded = half.encode(frames, list(range(DEPTH)), 4)
    assert torch.bfloat16 in {level.dtype for level in rounded.levels}
    exact = full.encode(frames, list(range(DEPTH)), 4)
    for ours, same in zip(half.track(rounded, POINT, SIZE, False), full.track(exact, POINT, SIZE, False), strict=True):
        assert (ours == same).mean() > 0.9
    pairs = zip(half.decode(rounded, BOX, SIZE, False), full.decode(exact, BOX, SIZE, False), strict=True)
    for (_, ours), (_, same) in pairs:
        assert (ours == same).mean() > 0.9


def test_an_architecture_that_builds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model:\n  _target_: sam2.no_such.Class\n")
    with pytest.raises(ArchitectureError, match=r"broken\.yaml: no model can be built"):
        build_from_yaml(path, {})
