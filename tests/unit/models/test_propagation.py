"""Boxes that carry prompts from slice to slice, against a plain loop around the packages' own image predictors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor
from tests.unit.models.official import (
    BOX,
    BOX_AND_POINT,
    DEPTH,
    POINT,
    SIZE,
    Given,
    assert_same,
    dice,
    loaded_sam2,
    official_prompt,
    prompt,
    saved_sam2,
)

from volprompt.models import engine
from volprompt.models.base import PromptableModel
from volprompt.models.engine import in_lockstep, segment_volumes
from volprompt.models.features import SliceFeatures
from volprompt.models.propagation import tight_boxes, widened
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.models.tracked import order_of_need, ways_apart
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.segmentation.masks import unpack_bits
from volprompt.settings.schemes import Scheme

# Millimetres between pixels along y and x, and by which boxes grow: 3 pixels along y and 2 along x.
SPACING, WIDEN_MM = (1.0, 1.5), 3.0


def boxed(**settings: Any) -> Scheme:
    return Scheme(**{"predictor": "image", "box": True, "propagate": "box", "widen_mm": WIDEN_MM, **settings})


def propagated(
    model: PromptableModel, frames: np.ndarray, prompts: Sequence[Given], batch_size: int = 1, **settings: Any
) -> tuple[list[np.ndarray], Segmented]:
    """A mask, bool (slice, y, x), per object; each is a scheme of its own, and all of them are run together."""
    given = {str(number): each if isinstance(each, list) else [each] for number, each in enumerate(prompts)}
    volume = LoadedVolume("knee", model.prepare(frames), frames.shape[1:], given, spacing=(1.0, *SPACING))
    schemes = {name: boxed(**settings) for name in given}
    (segmented,) = segment_volumes(model, [volume], schemes, batch_size)
    masks = [unpack_bits(segmented.masks[name][each[0].structure], frames.shape[2]) for name, each in given.items()]
    return masks, segmented


class PlainLoop:
    """A package's image predictor, slice after slice. Frames are encoded once each."""

    def __init__(
        self, predictor: SamPredictor | SAM2ImagePredictor, frames: np.ndarray, multimask: Any = False
    ) -> None:
        self.predictor, self.frames, self.multimask = predictor, frames, multimask
        self.sure: dict[int, float] = {}

    def predict(self, index: int, **given: Any) -> np.ndarray:
        self.predictor.set_image(np.repeat(self.frames[index][..., None], 3, axis=-1))
        masks, scores, _ = self.predictor.predict(**given, multimask_output=bool(self.multimask))
        chosen = 0 if self.multimask in (False, "first") else int(np.argmax(scores))
        self.sure[index] = float(scores[chosen])
        return masks[chosen] > 0

    def follow(self, given: ObjectPrompt) -> np.ndarray:
        """The object's masks, bool (slice, y, x), from one prompted slice to both ends."""
        found = np.zeros(self.frames.shape, bool)
        found[given.slice] = self.predict(given.slice, **official_prompt(given))
        for step, end in ((1, len(found)), (-1, -1)):
            for index in range(given.slice + step, end, step):
                y, x = np.nonzero(found[index - step])
                if not len(y):
                    break
                last = SIZE[1] - 1, SIZE[0] - 1
                box = [max(x.min() - 2, 0), max(y.min() - 3, 0), min(x.max() + 2, last[0]), min(y.max() + 3, last[1])]
                found[index] = self.predict(index, box=np.array(box))
        return found


@contextmanager
def small_masks(ours: PromptableModel, official: SamPredictor | SAM2ImagePredictor, by: float) -> Iterator[None]:
    """Models whose mask logits are lower by so much, so that masks, and the boxes that follow, are small."""
    if isinstance(ours, SamModel):
        with (
            mock.patch.object(ours.module, "mask_threshold", by),
            mock.patch.object(official.model, "mask_threshold", by),
        ):
            yield
        return

    def lower(decoder: Any, inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return output[0] - by, *output[1:]

    decoders = [ours.module.sam_mask_decoder, official.model.sam_mask_decoder]
    hooks = [decoder.register_forward_hook(lower, prepend=True) for decoder in decoders]
    yield
    for hook in hooks:
        hook.remove()


@pytest.fixture(params=["sam", "sam2"])
def pair(request: pytest.FixtureRequest) -> tuple[PromptableModel, Any]:
    """A family's model, and the package's predictor on the same weights."""
    predictor = {"sam": "sam_predictor", "sam2": "image_predictor"}[request.param]
    return request.getfixturevalue(request.param), request.getfixturevalue(predictor)


# What lowers the logits of the families' random models so that boxes are small, or that masks become empty on the way
# from a slice.
LOWER: dict[type, dict[bool | str, float]] = {SamModel: {False: 1.0, "best": 1.5}, Sam2Model: {}}
FAINT = {SamModel: (5, [2.7]), Sam2Model: (9, [5.4, 5.8, 6.2])}
STARTS: dict[str, tuple[ObjectPrompt, bool | str]] = {
    "box": (BOX[0], False),
    "point, best of three": (POINT[1], "best"),
    "box and point, first of three": (BOX_AND_POINT[0], "first"),
    "first slice": (prompt("femur", 0, [], [], [22, 3, 61, 33]), False),
    "last slice": (prompt("femur", DEPTH - 1, [(40.25, 20.5)], [1]), False),
}


@pytest.mark.usefixtures("resized_in_two_threads")
@pytest.mark.parametrize("kind", STARTS)
def test_masks_equal_a_loop_around_the_image_predictor(pair: Any, frames: np.ndarray, kind: str) -> None:
    model, predictor = pair
    given, multimask = STARTS[kind]
    with small_masks(model, predictor, LOWER[type(model)].get(multimask, 2.0)):
        (ours,), segmented = propagated(model, frames, [given], multimask=multimask)
        loop = PlainLoop(predictor, frames, multimask)
        official = loop.follow(given)
    assert_same(ours, official)
    assert (ours == official).all()
    boxes = [box for box in tight_boxes(torch.from_numpy(ours)) if box is not None]
    assert len({tuple(box) for box in boxes}) > DEPTH // 2, "one box for all slices would prove nothing"
    iou = segmented.confidence["0"][given.structure].predicted_iou
    assert np.flatnonzero(~np.isnan(iou)).tolist() == sorted(loop.sure)
    np.testing.assert_allclose(iou[sorted(loop.sure)], [loop.sure[n] for n in sorted(loop.sure)], atol=1e-3)


@pytest.mark.usefixtures("resized_in_two_threads")
def test_an_object_ends_where_its_mask_is_empty(pair: Any, frames: np.ndarray) -> None:
    """Slices beyond it are not encoded, nor decoded; one whose first mask is empty goes nowhere."""
    model, predictor = pair
    start, lower = FAINT[type(model)]
    given = prompt("femur", start, [], [], [22, 3, 61, 33])
    ended = 0
    for by in lower:
        with small_masks(model, predictor, by):
            (ours,), segmented = propagated(model, frames, [given])
            loop = PlainLoop(predictor, frames)
            assert (ours == loop.follow(given)).all()
        decoded = np.flatnonzero(~np.isnan(segmented.confidence["0"]["femur"].predicted_iou))
        assert decoded.tolist() == sorted(loop.sure)
        ended += 1 < len(decoded) < DEPTH and not ours[decoded[[0, -1]]].any(axis=(1, 2)).all()
    assert ended, "no object ends on its way"
    with small_masks(model, predictor, 100.0), mock.patch.object(model, "encode", wraps=model.encode) as encode:
        (nothing,), _ = propagated(model, frames, [BOX[0]])
    assert not nothing.any()
    assert sum(len(call.args[0]) for call in encode.call_args_list) == 1


@pytest.mark.usefixtures("resized_in_two_threads")
def test_several_prompted_slices_share_the_way(sam: SamModel, sam_predictor: SamPredictor, frames: np.ndarray) -> None:
    """Slices 2 and 6: slice 4 is equally near, and belongs to the first."""
    first, second = (prompt("femur", index, [], [], [22, 3, 61, 33]) for index in (2, 6))
    with small_masks(sam, sam_predictor, 1.0):
        (ours,), _ = propagated(sam, frames, [[first, second]])
        alone, _ = propagated(sam, frames, [first, second])
    assert (alone[0] != alone[1]).any(axis=(1, 2))[[4, 5]].all()
    assert (ours == np.concatenate([alone[0][:5], alone[1][5:]])).all()


@pytest.mark.usefixtures("resized_in_two_threads")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("resize", ["shared", "bicubic"])
def test_volumes_schemes_and_predictors_in_lockstep(
    tmp_path: Path, frames: np.ndarray, reset: bool, resize: Any
) -> None:
    """Objects on different slices, of image and video schemes, in volumes of different depth and size: as alone.

    With little memory features are forgotten between two uses, which changes no voxel.
    """
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    schemes = {
        "boxed": boxed(),
        "other": boxed(multimask="first"),
        "video": Scheme(predictor="video", box=True),
        "image": Scheme(predictor="image", point="centroid"),
    }

    def volume(name: str, depth: int, width: int, first: int, second: int) -> LoadedVolume:
        moving = [prompt("femur", first, [], [], [22, 3, 61, 33]), prompt("tibia", second, [], [], [30, 40, 70, 71])]
        image = [prompt("femur", index, [(40.25, 20.5)], [1]) for index in range(0, depth, 3)]
        cut = np.ascontiguousarray(frames[:depth, :, :width])
        given = {"boxed": moving, "other": moving[1:], "video": moving, "image": image}
        return LoadedVolume(name, cut, (SIZE[0], width), given, spacing=(1.0, *SPACING))

    volumes = [volume("a", DEPTH, 96, 5, 2), volume("b", 1, 96, 0, 0), volume("c", 9, 80, 8, 0)]

    def segmented(volumes: list[LoadedVolume]) -> list[Segmented]:
        return segment_volumes(model, volumes, schemes, 1, reset, video_resize=resize)

    together = segmented(volumes)
    with (
        mock.patch.multiple(engine, FEATURES_KEPT=2, FEATURES_KEPT_EACH=2),
        mock.patch.object(model, "encode", wraps=model.encode) as encode,
    ):
        forgetful = segmented(volumes)
    assert sum(len(call.args[0]) for call in encode.call_args_list) > DEPTH + 1 + 9
    for given, found, again in zip(volumes, together, forgetful, strict=True):
        (alone,) = segmented([given])
        for scheme, masks in found.masks.items():
            assert found.seconds_prompt[scheme] > 0
            for structure, bits in masks.items():
                assert (bits == again.masks[scheme][structure]).all()
                ours, expected = (unpack_bits(each, given.size[1]) for each in (bits, alone.masks[scheme][structure]))
                assert dice(ours, expected) >= 0.999


def test_boxes_of_one_step_are_one_batch(sam: SamModel, frames: np.ndarray) -> None:
    """Four objects of two schemes from one slice: as many decodings as slices, and each slice is encoded once."""
    prompts = [prompt(name, 5, [], [], [22, 3, 61, 33]) for name in ("femur", "tibia")]
    volume = LoadedVolume("knee", sam.prepare(frames), SIZE, {"one": prompts, "two": prompts}, spacing=(1.0, *SPACING))
    with (
        mock.patch.object(sam, "decode", wraps=sam.decode) as decode,
        mock.patch.object(sam, "encode", wraps=sam.encode) as encode,
    ):
        segment_volumes(sam, [volume], {"one": boxed(), "two": boxed()}, 4)
    assert [len(call.args[1]) for call in decode.call_args_list] == [4] * DEPTH
    assert sum(len(call.args[0]) for call in encode.call_args_list) == DEPTH


@pytest.mark.parametrize(
    ("prompted", "ways"),
    [
        ([2], {2: ([3, 4, 5], [1, 0])}),
        ([0], {0: ([1, 2, 3, 4, 5], [])}),
        ([5], {5: ([], [4, 3, 2, 1, 0])}),
        ([4, 0], {0: ([1, 2], []), 4: ([5], [3])}),
        ([1, 4], {1: ([2], [0]), 4: ([5], [3])}),
    ],
)
def test_slices_belong_to_the_nearest_prompted_one(prompted: list[int], ways: dict[int, Any]) -> None:
    found = {place: (list(way.forwards), list(way.reverse)) for place, way in ways_apart(prompted, 6).items()}
    assert found == ways


def test_the_order_in_which_boxes_need_slices() -> None:
    assert order_of_need([], 5, 9, [[2]]) == [2, 3, 4, 1, 0]
    assert order_of_need([], 5, 9, [[2]], boxes_wait=False) == [2, 3, 1, 4, 0]
    assert order_of_need([[1]], 4, 9, [[2]]) == [1, 2, 2, 3, 3, 1, 0, 0]
    assert order_of_need([], 5, 9, [[0, 4]]) == [0, 4, 1, 2, 3]


def test_passes_in_lockstep_need_their_slices_together() -> None:
    features = SliceFeatures(lambda slices: [], [], 3, 1, 1)
    one, two = ([[(features, index)] for index in range(count)] for count in (1, 3))
    steps = [[index for _, index in needed] for needed in in_lockstep([iter(one), iter(two)])]
    assert steps == [[0, 0], [1], [2]]


def test_uses_that_are_taken_back() -> None:
    encoded: list[int] = []

    def encode(slices: list[int]) -> list[torch.Tensor]:
        encoded.extend(slices)
        return [torch.tensor(slices, dtype=torch.float32).reshape(-1, 1, 1, 1)]

    features = SliceFeatures(encode, [0, 1, 2, 3, 1], 4, batch_size=2, capacity=4)
    features.require([0])
    assert encoded == [0, 1]
    features.forgo([1, 2, 3])  # another object still needs slice 1
    assert features.pending == []
    features.use(0)
    assert float(features.use(1).pop()) == 1
    assert features._kept == {}
    features = SliceFeatures(encode, [0, 1], 4, batch_size=2, capacity=4)
    features.require([0])
    features.forgo([1])
    assert list(features._kept) == [0]


def test_boxes_of_masks() -> None:
    masks = torch.zeros((3, 6, 8), dtype=torch.bool)
    masks[0, 2:4, 5] = masks[2, 0, 0] = masks[2, 5, 7] = True
    one, empty, corners = tight_boxes(masks)
    assert one is not None
    assert corners is not None
    assert (one.tolist(), empty, corners.tolist()) == ([5, 2, 5, 3], None, [0, 0, 7, 5])
    grown = widened(one, (0.5, 3), (6, 8))
    assert grown.dtype == np.float32
    assert grown.tolist() == [4.5, 0, 5.5, 5]
    assert widened(one, (9, 1), (6, 8)).tolist() == [0, 1, 7, 4]
