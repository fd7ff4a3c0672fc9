"""The adapters against the packages' own predictors, on the same weights: masks equal, Dice at least 0.999.

Small models with random weights, changed until a difference can show: objects are present, masks are neither empty nor
full, and memory has a say in them. With memory that loud, tracking is chaotic: one object alone must equal the official
predictor in every voxel, while the rounding of a batch of objects is compared on weights as they were drawn.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils import misc as video_utilities
from segment_anything import SamPredictor
from tests.unit.models.official import (
    BOX,
    CPU,
    DEMO,
    DEPTH,
    IMAGE_PROMPTS,
    MEMORY_SETTINGS,
    POINT,
    POINTS,
    SAM,
    SAM2,
    SIZE,
    Given,
    assert_same,
    best,
    dice,
    eight_connected,
    loaded_sam2,
    loud_pointers,
    official_prompt,
    official_video_predictor,
    prompt,
    resized,
    ring,
    saved_sam2,
    set_to,
    trained_sam2,
)

from volprompt.models import engine, sam_attention
from volprompt.models.base import PromptableModel, build_from_yaml
from volprompt.models.devices import Device
from volprompt.models.engine import segment_volumes
from volprompt.models.holes import fill_holes
from volprompt.models.loading import load_model
from volprompt.models.model import ArchitectureError, keep_strided_in_float32
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.segmented import LoadedVolume
from volprompt.phantom.image import make_phantom
from volprompt.prompts.candidates import volume_prompts
from volprompt.prompts.schemes import ObjectPrompt, scheme_prompts
from volprompt.segmentation.masks import unpack_bits
from volprompt.settings.schemes import Scheme


def masks_of(
    model: PromptableModel,
    frames: np.ndarray,
    prompts: Sequence[Given],
    predictor: str,
    *,
    batch_size: int = 4,
    multimask: bool | str = False,
    reset: bool = False,
    **settings: Any,
) -> list[np.ndarray]:
    """A mask, bool (slice, y, x), per object; each is a scheme of its own, and all of them are run together."""
    schemes = {str(n): Scheme(predictor=predictor, point="centroid", multimask=multimask) for n in range(len(prompts))}
    given = {str(number): each if isinstance(each, list) else [each] for number, each in enumerate(prompts)}
    volume = LoadedVolume("knee", model.prepare(frames), frames.shape[1:], given)
    (segmented,) = segment_volumes(model, [volume], schemes, batch_size, reset, **settings)
    return [
        unpack_bits(segmented.masks[number][of_object[0].structure], frames.shape[2])
        for number, of_object in given.items()
    ]


def decoded(
    model: PromptableModel,
    frames: np.ndarray,
    prompts: list[ObjectPrompt],
    multimask: bool | str = False,
    batch_size: int = 3,
) -> list[np.ndarray]:
    """Each prompt's mask on its slice, bool (y, x)."""
    found = masks_of(model, frames, prompts, "image", multimask=multimask, batch_size=batch_size)
    return [mask[given.slice] for given, mask in zip(prompts, found, strict=True)]


def tracked(
    model: PromptableModel,
    frames: np.ndarray,
    prompts: Sequence[Given],
    reset: bool = False,
    batch_size: int = 4,
    **settings: Any,
) -> list[np.ndarray]:
    """Each object's mask, bool (slice, y, x), all objects in lockstep."""
    return masks_of(model, frames, prompts, "video", reset=reset, batch_size=batch_size, **settings)


@pytest.mark.parametrize("multimask", [False, "first", "best"])
@pytest.mark.parametrize("kind", IMAGE_PROMPTS)
def test_sam_equals_sam_predictor(
    sam: SamModel, sam_predictor: SamPredictor, frames: np.ndarray, kind: str, multimask: bool | str
) -> None:
    predictor = sam_predictor
    predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    prompts = IMAGE_PROMPTS[kind]
    for given, mask in zip(prompts, decoded(sam, frames, prompts, multimask), strict=True):
        masks, scores, _ = predictor.predict(**official_prompt(given), multimask_output=bool(multimask))
        assert_same(mask, masks[0] > 0 if multimask == "first" else best(masks, scores))


@pytest.mark.parametrize("multimask", [False, "first", "best"])
@pytest.mark.parametrize("kind", IMAGE_PROMPTS)
def test_sam2_equals_image_predictor(
    sam2: Sam2Model, image_predictor: SAM2ImagePredictor, frames: np.ndarray, kind: str, multimask: bool | str
) -> None:
    predictor = image_predictor
    predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    prompts = IMAGE_PROMPTS[kind]
    for given, mask in zip(prompts, decoded(sam2, frames, prompts, multimask), strict=True):
        masks, scores, _ = predictor.predict(**official_prompt(given), multimask_output=bool(multimask))
        assert_same(mask, masks[0] > 0 if multimask == "first" else best(masks, scores))


def test_prompts_of_many_slices_come_back_with_their_own_masks(sam2: Sam2Model, frames: np.ndarray) -> None:
    prompts = [prompt(name, i, [(40.0 + i, 20.0 + i)], [1]) for i in (9, 2, 5) for name in ("femur", "tibia")]
    scheme = {"point": Scheme(predictor="image", point="centroid")}
    (segmented,) = segment_volumes(sam2, [LoadedVolume("knee", frames, SIZE, {"point": prompts})], scheme, batch_size=2)
    masks = {name: unpack_bits(bits, SIZE[1]) for name, bits in segmented.masks["point"].items()}
    for given in prompts:
        (alone,) = decoded(sam2, frames, [given], batch_size=1)
        assert_same(masks[given.structure][given.slice], alone)
    assert not masks["femur"][[0, 1, 3, 4, 6, 7, 8, 10, 11]].any()


def official_tracks(
    predictor: SAM2VideoPredictor, images: torch.Tensor, given: Given, reset: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Forward and reverse with the official class on frames that are already resized: slice, mask bool (y, x).

    All prompts are added before the propagation, which then starts where the class starts by itself.
    """
    loaded = (images.clone(), *SIZE)
    with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
        state = predictor.init_state("frames")

    def add() -> None:
        for each in given if isinstance(given, list) else [given]:
            points = {"points": each.points, "labels": each.labels} if len(each.points) else {}
            if each.mask is not None:
                predictor.add_new_mask(state, each.slice, 1, each.mask)
            else:
                predictor.add_new_points_or_box(state, each.slice, 1, box=each.box, **points)

    add()
    for index, _, logits in predictor.propagate_in_video(state):
        yield index, (logits[0, 0] > 0).numpy()
    if reset:
        predictor.reset_state(state)
        add()
    for index, _, logits in predictor.propagate_in_video(state, reverse=True):
        yield index, (logits[0, 0] > 0).numpy()


def official_mask(predictor: SAM2VideoPredictor, images: torch.Tensor, given: Given, reset: bool) -> np.ndarray:
    """What `official_tracks` finds, bool (slice, y, x)."""
    mask = np.zeros((len(images), *SIZE), bool)
    for index, found in official_tracks(predictor, images, given, reset):
        mask[index] = found
    return mask


VIDEO_PROMPTS = OrderedDict(
    point=POINT,
    points=POINTS,
    box=BOX,
    first_slice=[prompt("femur", 0, [(40.25, 20.5)], [1])],
    last_slice=[prompt("femur", DEPTH - 1, [(40.25, 20.5)], [1])],
    different_slices=[prompt("femur", 3, [(40.25, 20.5)], [1]), prompt("tibia", 9, [(52.0, 55.75)], [1])],
    mixed_lengths=[POINT[0], POINTS[1], BOX[0]],
    mask=[
        prompt("femur", 5, [], [], mask=ring((20, 40), 15, 0)),
        prompt("tibia", 8, [], [], mask=ring((50, 50), 14, 4)),
    ],
    several_slices=[
        [prompt("femur", 3, [(40.25, 20.5)], [1]), prompt("femur", 8, [(44.0, 22.0)], [1])],
        [prompt("tibia", 0, [(52.0, 55.75)], [1]), prompt("tibia", 6, [], [], [30, 40, 70, 71])],
        [prompt("femur", 4, [(40.25, 20.5)], [1]), prompt("femur", 5, [(41.0, 21.0), (52.0, 55.75)], [1, 0])],
        [prompt("tibia", index, [(52.0, 55.75)], [1]) for index in (2, 7, DEPTH - 1)],
        [prompt("femur", index, [], [], mask=ring((20, 40), 9 + index, 0)) for index in (1, 5, 9)],
    ],
)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", VIDEO_PROMPTS)
def test_tracking_equals_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, kind: str, reset: bool
) -> None:
    images = resized(sam2, frames)
    for given in VIDEO_PROMPTS[kind]:
        (ours,) = tracked(sam2, frames, [given], reset, batch_size=1)
        official = official_mask(video_predictor, images, given, reset)
        assert_same(ours, official)
        assert (ours == official).all()


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("name", MEMORY_SETTINGS)
def test_tracking_follows_the_settings_of_memory(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, name: str
) -> None:
    settings = MEMORY_SETTINGS[name]
    point = [prompt("femur", index, [(40.25 + index, 20.5)], [1]) for index in (1, 4, 6, 10)]
    mask = [prompt("femur", index, [], [], mask=ring((20, 40), 9 + index, 0)) for index in (2, 7)]
    with loud_pointers(sam2.module, video_predictor):
        default = [tracked(sam2, frames, [each], batch_size=1)[0] for each in (point, mask)]
        with set_to(settings, sam2, video_predictor):
            found = [tracked(sam2, frames, [each], batch_size=1)[0] for each in (point, mask)]
            for given, ours in zip([point, mask], found, strict=True):
                assert (ours == official_mask(video_predictor, resized(sam2, frames), given, reset=False)).all()
    assert any((ours != before).any() for ours, before in zip(found, default, strict=True)), "the setting has no effect"


@pytest.mark.usefixtures("resized_in_two_threads")
@pytest.mark.parametrize("area", [8, 100])
def test_filling_holes_equals_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, area: int
) -> None:
    """In masks, and in what is remembered of prompted slices; not in what is remembered on the way."""
    images = resized(sam2, frames)
    for given in (POINT[0], VIDEO_PROMPTS["mask"][1], VIDEO_PROMPTS["several_slices"][1]):
        (ours,) = tracked(sam2, frames, [given], batch_size=1, hole_area=area)
        (with_holes,) = tracked(sam2, frames, [given], batch_size=1)
        with (
            mock.patch.object(video_predictor, "fill_hole_area", area),
            mock.patch("sam2.utils.misc.get_connected_components", eight_connected),
        ):
            official = official_mask(video_predictor, images, given, reset=False)
        assert (ours == official).all()
        assert (ours != with_holes).any()


def test_holes_are_those_that_touch_by_corners() -> None:
    """Two background pixels that touch by a corner are one hole of two; a hole does not reach into the next mask."""
    logits = torch.full((2, 1, 6, 6), 1.0)
    logits[0, 0, 1, 1] = logits[0, 0, 2, 2] = -3.0
    logits[0, 0, 4, 4] = 0.0
    logits[1, 0, 4, 4] = -1.0
    one = fill_holes(logits, 1)
    assert one[0, 0, 1, 1] == one[0, 0, 2, 2] == -3
    assert one[0, 0, 4, 4] == one[1, 0, 4, 4] == pytest.approx(0.1)
    assert (fill_holes(logits, 2) > 0).all()
    assert fill_holes(logits, 0) is logits


def test_frames_resized_as_the_video_loader_does(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, tmp_path: Path
) -> None:
    """The package's own loader on files without loss; image schemes keep their own way beside it."""
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    load = video_utilities._load_img_as_tensor

    def png(path: str, size: int) -> tuple[torch.Tensor, int, int]:
        return load(str(Path(path).with_suffix(".png")), size)

    names = [f"{index}.jpg" for index in range(DEPTH)]  # the loader lists nothing but names of JPEG files
    with (
        mock.patch.object(video_utilities, "_load_img_as_tensor", png),
        mock.patch.object(video_utilities.os, "listdir", return_value=names),
    ):
        images, height, width = video_utilities.load_video_frames(str(tmp_path), 128, True)
    assert (height, width) == SIZE
    point = LoadedVolume("knee", frames, SIZE, {"video": [POINT[0]], "image": POINT})
    schemes = {name: Scheme(predictor=name, point="centroid") for name in ("image", "video")}
    (ours,) = segment_volumes(sam2, [point], schemes, 1, video_resize="bicubic")
    (shared,) = segment_volumes(sam2, [point], schemes, 1)
    video = unpack_bits(ours.masks["video"]["femur"], SIZE[1])
    assert dice(video, official_mask(video_predictor, images, POINT[0], reset=False)) >= 0.999
    assert (ours.masks["video"]["femur"] != shared.masks["video"]["femur"]).any()
    for name, bits in ours.masks["image"].items():
        assert (bits == shared.masks["image"][name]).all()


@pytest.mark.usefixtures("resized_in_two_threads")
@pytest.mark.parametrize("reset", [False, True])
def test_a_deep_volume_equals_video_predictor(official: None, tmp_path: Path, frames: np.ndarray, reset: bool) -> None:
    """Deeper than memory and pointers reach, to both sides of the prompt. With a reset, both directions are a batch."""
    checkpoint = saved_sam2(tmp_path / "sam2.pt", memory=1 if reset else 3)
    model = loaded_sam2(checkpoint)
    predictor = official_video_predictor(SAM2.stem, checkpoint)
    deep = np.concatenate([frames, frames[::-1], frames, frames[::-1]])
    given = prompt("femur", 20, [(40.25, 20.5)], [1])
    (ours,) = tracked(model, deep, [given], reset)
    official = official_mask(predictor, resized(model, deep), given, reset)
    assert_same(ours, official)
    assert reset or (ours == official).all()


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("reset", [False, True])
def test_distant_prompted_slices_equal_video_predictor(official: None, tmp_path: Path, reset: bool) -> None:
    """Farther apart than memory and pointers reach, in a deep volume with its own content on every slice."""
    checkpoint = saved_sam2(tmp_path / "sam2.pt", memory=3)
    model = loaded_sam2(checkpoint)
    predictor = official_video_predictor(SAM2.stem, checkpoint)
    deep = np.random.default_rng(4).integers(0, 255, (60, 9, 12), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    given = [prompt("femur", index, [(40.25, 20.5)], [1]) for index in (12, 20, 41)]
    (ours,) = tracked(model, deep, [given], reset)
    official = official_mask(predictor, resized(model, deep), given, reset)
    assert_same(ours, official)
    assert (ours == official).all()


@pytest.mark.usefixtures("resized_in_two_threads")
def test_another_image_size_equals_video_predictor(official: None, sam2_checkpoint: Path, frames: np.ndarray) -> None:
    """Half the size that the architecture's file gives, on the same weights."""
    settings = {"family": "sam2", "architecture": str(SAM2), "image_size": 64}
    model = load_model(settings, str(sam2_checkpoint), CPU)
    half = ["++model.image_size=64"]
    predictor = official_video_predictor(SAM2.stem, sam2_checkpoint, hydra_overrides_extra=half)
    (ours,) = tracked(model, frames, [POINT[0]], batch_size=1)
    official = official_mask(predictor, resized(model, frames), POINT[0], reset=False)
    assert_same(ours, official)
    assert (ours == official).all()


@pytest.mark.parametrize("reset", [False, True])
def test_objects_in_lockstep_equal_objects_alone(tmp_path: Path, frames: np.ndarray, reset: bool) -> None:
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    prompts: list[Given] = [POINT[0], POINTS[1], BOX[0], prompt("patella", 9, [(12.0, 30.0)], [1])]
    prompts += VIDEO_PROMPTS["mask"] + VIDEO_PROMPTS["several_slices"]
    for given, mask in zip(prompts, tracked(model, frames, prompts, reset), strict=True):
        (alone,) = tracked(model, frames, [given], reset)
        assert_same(mask, alone)


@pytest.mark.parametrize("reset", [False, True])
def test_trained_model_in_lockstep_equals_video_predictor(frames: np.ndarray, reset: bool) -> None:
    """The demo's own checkpoint, all objects as one batch."""
    model, predictor = trained_sam2()
    images = resized(model, frames)
    prompts = [*POINT, *POINTS, *VIDEO_PROMPTS["mask"], *VIDEO_PROMPTS["several_slices"][:2]]
    for given, mask in zip(prompts, tracked(model, frames, prompts, reset), strict=True):
        assert_same(mask, official_mask(predictor, images, given, reset))


def test_reset_changes_the_reverse_pass_only(sam2: Sam2Model, frames: np.ndarray) -> None:
    (shared,) = tracked(sam2, frames, POINT[:1])
    (reset,) = tracked(sam2, frames, POINT[:1], reset=True)
    assert (shared[5:] == reset[5:]).all()
    assert (shared[:5] != reset[:5]).any()


@pytest.mark.parametrize("little_memory", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_volumes_of_different_depth_in_lockstep_equal_volumes_alone(
    tmp_path: Path, frames: np.ndarray, reset: bool, little_memory: bool
) -> None:
    """Ragged depths and frame sizes, prompts on the first, last and only slice, image and video schemes at once.

    With little memory features are forgotten between two uses, and batches hold two objects.
    """
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    schemes = {
        "image": Scheme(predictor="image", point="centroid"),
        "video": Scheme(predictor="video", point="centroid"),
        "other": Scheme(predictor="video", point="centroid", slice="nearest"),
    }

    def volume(name: str, depth: int, width: int, first: int, second: int) -> LoadedVolume:
        point = [(40.25, 20.5)]
        video = [prompt("femur", first, point, [1]), prompt("tibia", second, [(52.0, 55.75)], [1])]
        image = [prompt("femur", index, point, [1]) for index in range(0, depth, 3)]
        cut = np.ascontiguousarray(frames[:depth, :, :width])
        return LoadedVolume(name, cut, (SIZE[0], width), {"image": image, "video": video, "other": [video[1]]})

    volumes = [volume("a", DEPTH, 96, 5, 2), volume("b", 1, 96, 0, 0), volume("c", 9, 80, 8, 0)]
    with ExitStack() as limits:
        if little_memory:
            limits.enter_context(mock.patch.multiple(engine, FEATURES_KEPT=2, FEATURES_KEPT_EACH=2))
            limits.enter_context(mock.patch.object(PromptableModel, "largest_batch", 2))
        encode = limits.enter_context(mock.patch.object(model, "encode", wraps=model.encode))
        together = segment_volumes(model, volumes, schemes, 4, reset)
    encoded = sum(len(call.args[0]) for call in encode.call_args_list)
    assert (encoded > DEPTH + 1 + 9) == little_memory
    for given, segmented in zip(volumes, together, strict=True):
        (alone,) = segment_volumes(model, [given], schemes, 1, reset)
        assert segmented.masks.keys() == given.prompts.keys()
        for scheme, masks in segmented.masks.items():
            for structure, bits in masks.items():
                ours, expected = (unpack_bits(each, given.size[1]) for each in (bits, alone.masks[scheme][structure]))
                assert ours.shape == (len(given.frames), *given.size)
                assert dice(ours, expected) >= 0.999


def test_one_slice_volume(sam2: Sam2Model, frames: np.ndarray) -> None:
    (mask,) = tracked(sam2, frames[:1], [prompt("femur", 0, [(40.25, 20.5)], [1])])
    assert mask.shape == (1, *SIZE)


@pytest.mark.parametrize("queries", [sam_attention.QUERIES, 24])
def test_fused_attention_encodes_as_the_package_does(
    sam: SamModel, sam_predictor: SamPredictor, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    """A frame that is not square, so that rows and columns must not be mixed up; all queries at once, and in parts."""
    monkeypatch.setattr(sam_attention, "QUERIES", queries)
    predictor = sam_predictor
    predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    with sam.inference():
        (ours,) = sam.encode(sam.prepare(frames[5:6]))
    torch.testing.assert_close(ours, predictor.get_image_embedding(), rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("attention", ["auto", "package"])
def test_parameters_are_those_of_the_packages_model(sam2_checkpoint: Path, tmp_path: Path, attention: Any) -> None:
    """What an adapter derives from the weights does not count."""
    torch.save(SamModel.build(str(SAM)).state_dict(), tmp_path / "sam.pth")
    settings = [("sam", SAM, SamModel, tmp_path / "sam.pth"), ("sam2", SAM2, Sam2Model, sam2_checkpoint)]
    for family, architecture, adapter, checkpoint in settings:
        built = sum(each.numel() for each in adapter.build(str(architecture)).parameters())
        identity = {"family": family, "architecture": str(architecture)}
        model = load_model(identity, str(checkpoint), Device("cpu", "float32", "CPU", attention))
        assert model.parameters == built


def test_convolutions_with_a_stride_are_right_in_bfloat16() -> None:
    """Some are not, on processors with AMX, if torch has its way (`keep_strided_in_float32`)."""
    torch.manual_seed(0)
    strided, plain = torch.nn.Conv2d(16, 256, 4, 4), torch.nn.Conv2d(16, 16, 3)
    image = torch.randn(1, 16, 64, 64)
    with torch.no_grad():
        expected = strided(image)
        keep_strided_in_float32(torch.nn.Sequential(strided, plain))
        with torch.autocast("cpu", torch.bfloat16):
            found = strided(image.bfloat16())
            assert plain(image).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.02)


def test_bfloat16_stays_close_to_float32(tmp_path: Path, frames: np.ndarray) -> None:
    """bfloat16 runs through on a CPU, image and video, and gives masks of the same shape and much the same content."""
    checkpoint = saved_sam2(tmp_path / "sam2.pt", memory=1)
    half, full = loaded_sam2(checkpoint, "bfloat16"), loaded_sam2(checkpoint)
    with half.inference():
        assert torch.bfloat16 in {level.dtype for level in half.encode(frames[:1])}
    for ours, same in zip(tracked(half, frames, POINT), tracked(full, frames, POINT), strict=True):
        assert (ours == same).mean() > 0.9
    for ours, same in zip(decoded(half, frames, BOX), decoded(full, frames, BOX), strict=True):
        assert (ours == same).mean() > 0.9


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_trained_models_in_bfloat16_stay_within_two_hundredths(family: str) -> None:
    """The demo's checkpoints on a whole knee, under every kind of scheme: Dice of at least 0.98 against float32.

    The package itself comes to between 0.981 and 0.994 on four knees. In thick slices, since bfloat16 is slow on many
    CPUs.
    """
    phantom = make_phantom(905, (20, 96, 96), (5.6, 1.46, 1.46))
    frames = np.clip(phantom.image / np.percentile(phantom.image, 99.5) * 255, 0, 255).astype(np.uint8)
    frames = np.ascontiguousarray(frames[:, ::-1, ::-1].transpose(0, 2, 1))
    labels = phantom.labels[:, ::-1, ::-1].transpose(0, 2, 1)
    table = volume_prompts(labels, {"femur": [1], "tibia": [3]}, [], frames.shape, (1.46, 1.46))
    schemes = {"point": Scheme(predictor="image", point="centroid"), "box": Scheme(predictor="image", box=True)}
    if family == "sam2":
        schemes["video"] = Scheme(predictor="video", point="centroid", slice="nearest")
    names = ["femur", "tibia"]
    given = {name: scheme_prompts(scheme, table, names, names, len(frames)).prompts for name, scheme in schemes.items()}
    checkpoint = DEMO / "checkpoints" / ("demo_sam.pth" if family == "sam" else "demo_sam2.pt")
    found = []
    for precision in ("float32", "bfloat16"):
        settings = {"family": family, "architecture": str(DEMO / f"{family}_demo.yaml")}
        model = load_model(settings, str(checkpoint), Device("cpu", precision, "CPU"))
        volume = LoadedVolume("knee", model.prepare(frames), frames.shape[1:], given)
        (segmented,) = segment_volumes(model, [volume], schemes, 4)
        found.append({(name, part): bits for name, masks in segmented.masks.items() for part, bits in masks.items()})
    full, half = found
    for key, bits in full.items():
        masks = [unpack_bits(each, frames.shape[2]) for each in (bits, half[key])]
        assert masks[0].sum() > 1000
        assert dice(*masks) >= 0.98, key


def test_an_architecture_that_builds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model:\n  _target_: sam2.modeling.no_such.Class\n")
    with pytest.raises(ArchitectureError, match=r"broken\.yaml: no model can be built"):
        build_from_yaml(path, {})
