"""Corrections against the packages' own predictors, which are given the same clicks in the same order.

Each round's clicks are also those that the simulation gives for the masks of the round before.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from segment_anything import SamPredictor
from tests.unit.models.official import (
    BOX,
    DEPTH,
    IMAGE_PROMPTS,
    MEMORY_SETTINGS,
    POINT,
    POINTS,
    SIZE,
    Given,
    assert_same,
    dice,
    eight_connected,
    loaded_sam2,
    loud_pointers,
    official_prompt,
    prompt,
    resized,
    ring,
    saved_sam2,
    set_to,
    trained_sam2,
)

from volprompt.models import engine, memory_tracking
from volprompt.models.base import PromptableModel
from volprompt.models.engine import segment_volumes
from volprompt.models.memory_bank import MemoryBank
from volprompt.models.rounds import CorrectionReference, MadeClick
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.models.volume_work import Progress
from volprompt.prompts.corrections import Click, click_in_volume, click_on_slice
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.segmentation.masks import unpack_bits
from volprompt.settings.schemes import Corrections, Scheme

SPACING = (5.0, 1.9, 1.46)
CLICKS = 3


def blob(centre: tuple[int, int], radius: float) -> np.ndarray:
    """A reference that hardly any mask of a small model equals, bool (slice, y, x)."""
    return np.stack([ring(centre, radius - abs(index - 5), 0) for index in range(DEPTH)])


REFERENCES = {"femur": blob((20, 40), 17), "tibia": blob((55, 50), 15)}


def known(masks: Mapping[str, np.ndarray], **settings: Any) -> CorrectionReference:
    return CorrectionReference({name: np.packbits(mask, axis=-1) for name, mask in masks.items()}, SPACING, **settings)


def corrected(
    model: PromptableModel,
    frames: np.ndarray,
    prompts: Mapping[str, Given],
    references: Mapping[str, np.ndarray],
    predictor: str,
    *,
    clicks: int = CLICKS,
    reset: bool = False,
    batch_size: int = 4,
    progress: Progress = lambda volume, done, total, what: None,
    **settings: Any,
) -> Segmented:
    """All schemes of a volume together; prompts: of each scheme."""
    scheme = Scheme(
        predictor=predictor, point="centroid", corrections=Corrections(clicks=clicks) if clicks else None, **settings
    )
    given = {name: each if isinstance(each, list) else [each] for name, each in prompts.items()}
    volume = LoadedVolume("knee", model.prepare(frames), SIZE, given, known(references))
    (segmented,) = segment_volumes(model, [volume], dict.fromkeys(given, scheme), batch_size, reset, progress)
    return segmented


def rounds_of(segmented: Segmented, name: str, structure: str) -> np.ndarray:
    """Masks of every round, bool (round, slice, y, x)."""
    return unpack_bits(segmented.rounds[name][structure], SIZE[1])


def clicks_of(segmented: Segmented, name: str, structure: str, number: int) -> list[Click]:
    """The clicks of one round."""
    return [
        Click(*click[2:]) for click in segmented.clicks[name] if click.round == number and click.structure == structure
    ]


# Image schemes


def assert_simulated_on_slices(rounds: np.ndarray, clicks: Sequence[MadeClick], reference: np.ndarray) -> None:
    """Each round clicks on exactly those slices that are prompted and have an error, where the simulation says."""
    first = {click.slice for click in clicks if click.round == 1}
    for number in range(1, len(rounds)):
        made = {click.slice: Click(*click[2:]) for click in clicks if click.round == number}
        wanted = {
            index: click_on_slice(rounds[number - 1, index], reference[index], SPACING[1:], index) for index in first
        }
        assert made == {index: click for index, click in wanted.items() if click is not None}


def official_decodings(
    predictor: Any, given: ObjectPrompt, clicks: Sequence[Click], multimask: bool
) -> Iterator[tuple[np.ndarray, float]]:
    """Mask, bool (y, x), and predicted IoU of each round, with the image that the predictor was set to."""
    points, labels, logits = given.points, given.labels, None
    for click in [None, *clicks]:
        if click is not None:
            points = np.concatenate([points, [[click.x, click.y]]]).astype(np.float32)
            labels = np.concatenate([labels, [click.label]]).astype(np.int32)
        point = {"point_coords": points, "point_labels": labels} if len(points) else {}
        masks, scores, low_res = predictor.predict(
            **point, box=given.box, mask_input=logits, multimask_output=multimask and click is None
        )
        best = int(np.argmax(scores))
        logits = low_res[best : best + 1]
        yield masks[best].astype(bool), float(scores[best])


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", IMAGE_PROMPTS)
@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_image_schemes_equal_the_image_predictors(
    sam: SamModel,
    sam2: Sam2Model,
    sam_predictor: SamPredictor,
    image_predictor: SAM2ImagePredictor,
    frames: np.ndarray,
    family: str,
    kind: str,
    multimask: bool,
) -> None:
    """On two slices, all objects of which are one batch; masks, and the predicted IoU of the last round."""
    model = sam if family == "sam" else sam2
    predictor = sam_predictor if family == "sam" else image_predictor
    prompts = [ObjectPrompt(each.structure, index, each.points, each.labels, each.box)
               for each in IMAGE_PROMPTS[kind] for index in (4, 7)]  # fmt: skip
    found = corrected(model, frames, {"it": prompts}, REFERENCES, "image", multimask=multimask)
    for given in prompts:
        name, index = given.structure, given.slice
        rounds = rounds_of(found, "it", name)
        assert_simulated_on_slices(
            rounds, [each for each in found.clicks["it"] if each.structure == name], REFERENCES[name]
        )
        clicks = [each for n in range(1, CLICKS + 1) for each in clicks_of(found, "it", name, n) if each.slice == index]
        assert len(clicks) == CLICKS
        predictor.set_image(np.repeat(frames[index][..., None], 3, axis=-1))
        official = list(official_decodings(predictor, given, clicks, multimask))
        for number, (mask, _) in enumerate(official):
            assert_same(rounds[number, index], mask)
        confidence, (_, score) = found.confidence["it"][name], official[-1]
        assert confidence.predicted_iou[index] == pytest.approx(score, abs=1e-4)
        assert np.isnan(confidence.object_score[index]) == (family == "sam")
        assert np.isnan(confidence.predicted_iou[[0, 5, 11]]).all()
        assert confidence.predicted_iou.dtype == confidence.object_score.dtype == np.float32


def test_object_score_of_image_schemes(
    sam2: Sam2Model, image_predictor: SAM2ImagePredictor, frames: np.ndarray
) -> None:
    """The package's image predictor does not return it: its decoder does."""
    found = corrected(sam2, frames, {"it": [POINTS[0]]}, REFERENCES, "image", clicks=0)
    scores = []
    hook = image_predictor.model.sam_mask_decoder.register_forward_hook(lambda *call: scores.append(call[2][3].item()))
    image_predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
    image_predictor.predict(**official_prompt(POINTS[0]), multimask_output=False)
    hook.remove()
    assert found.confidence["it"]["femur"].object_score[5] == pytest.approx(scores[0], abs=1e-4)
    assert found.rounds == found.clicks == found.seconds_rounds == {}


def test_a_slice_without_error_is_clicked_on_no_more(sam2: Sam2Model, frames: np.ndarray) -> None:
    """One slice is right from the start, another after no round: they leave the batch, and keep their masks."""
    prompts = [prompt("femur", index, [(40.25, 20.5)], [1]) for index in (2, 5, 8)]
    first = corrected(sam2, frames, {"it": prompts}, REFERENCES, "image", clicks=0)
    reference = unpack_bits(first.masks["it"]["femur"], SIZE[1]).copy()
    reference[8, 60:70, 5:15] ^= True
    found = corrected(sam2, frames, {"it": prompts}, {"femur": reference}, "image")
    rounds = rounds_of(found, "it", "femur")
    assert {click.slice for click in found.clicks["it"]} == {8}
    assert (rounds[:, :8] == reference[:8]).all()
    assert (found.masks["it"]["femur"] == found.rounds["it"]["femur"][-1]).all()
    assert len(found.seconds_rounds["it"]) == len(rounds)
    assert sum(found.seconds_rounds["it"]) == pytest.approx(found.seconds_prompt["it"])


@contextmanager
def sure_masks(*modules: torch.nn.Module) -> Iterator[None]:
    """Models whose logits are large: cut off when they become a prompt, and stable."""
    layers = [mlp.layers[-1] for module in modules for mlp in module.sam_mask_decoder.output_hypernetworks_mlps]
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(32)
            layer.bias.mul_(32)
    yield
    with torch.no_grad():
        for layer in layers:
            layer.weight.div_(32)
            layer.bias.div_(32)


def test_large_logits_are_cut_off_as_in_the_image_predictor(
    sam2: Sam2Model, image_predictor: SAM2ImagePredictor, frames: np.ndarray
) -> None:
    with sure_masks(sam2.module, image_predictor.model):
        found = corrected(sam2, frames, {"it": POINTS}, REFERENCES, "image")
        image_predictor.set_image(np.repeat(frames[5][..., None], 3, axis=-1))
        for given in POINTS:
            clicks = [clicks_of(found, "it", given.structure, number)[0] for number in range(1, CLICKS + 1)]
            official = official_decodings(image_predictor, given, clicks, multimask=False)
            for mask, (expected, _) in zip(rounds_of(found, "it", given.structure), official, strict=True):
                assert (mask[5] == expected).mean() > 0.9999


# Video schemes


class OfficialState:
    """One object with the official class, set as corrections need it; every round goes forwards and in reverse."""

    def __init__(self, predictor: SAM2VideoPredictor, images: torch.Tensor, given: Given, reset: bool) -> None:
        self.predictor, self.reset = predictor, reset
        prompts = given if isinstance(given, list) else [given]
        self.start = min(each.slice for each in prompts)
        self.mask = np.zeros((len(images), *SIZE), bool)
        self.confidence = np.full((2, len(images)), np.nan)
        with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=(images.clone(), *SIZE)):
            self.state = predictor.init_state("frames")
        with self._set():
            for each in prompts:
                points = {"points": each.points, "labels": each.labels} if len(each.points) else {}
                if each.mask is not None:
                    predictor.add_new_mask(self.state, each.slice, 1, each.mask)
                else:
                    predictor.add_new_points_or_box(self.state, each.slice, 1, box=each.box, **points)
            self._propagate()

    def click(self, click: Click) -> None:
        with self._set():
            points = np.array([[click.x, click.y]], np.float32)
            labels = np.array([click.label], np.int32)
            self.predictor.add_new_points_or_box(
                self.state, click.slice, 1, points=points, labels=labels, clear_old_points=False
            )
            self._propagate()

    @contextmanager
    def _set(self) -> Iterator[None]:
        """The settings of the package, with an eye on what its heads return for each slice."""
        track_step = self.predictor._track_step

        def noting(frame_idx: int, *arguments: Any, **named: Any) -> Any:
            result = track_step(frame_idx, *arguments, **named)
            self.confidence[:, frame_idx] = result[1][2].max().item(), result[1][6].item()
            return result

        assert not self.predictor.clear_non_cond_mem_around_input
        with (
            mock.patch.object(self.predictor, "add_all_frames_to_correct_as_cond", True),
            mock.patch.object(self.predictor, "_track_step", noting),
        ):
            yield

    def _propagate(self) -> None:
        for reverse in (False, True):
            if self.reset:
                self.state["output_dict_per_obj"][0]["non_cond_frame_outputs"].clear()
            for index, _, logits in self.predictor.propagate_in_video(
                self.state, start_frame_idx=self.start, reverse=reverse
            ):
                self.mask[index] = (logits[0, 0] > 0).numpy()


def assert_rounds_equal(
    found: Segmented, name: str, structure: str, reference: np.ndarray, state: OfficialState, *, exact: bool
) -> list[Click]:
    """Every round of an object, voxel for voxel or as Dice, the clicks between them, and the confidence at the end."""
    rounds, clicks = rounds_of(found, name, structure), []
    for number, mask in enumerate(rounds):
        if number:
            (click,) = clicks_of(found, name, structure, number)
            assert click == click_in_volume(rounds[number - 1], reference, SPACING)
            state.click(click)
            clicks.append(click)
        assert_same(mask, state.mask)
        assert not exact or (mask == state.mask).all()
    assert (unpack_bits(found.masks[name][structure], SIZE[1]) == rounds[-1]).all()
    confidence = found.confidence[name][structure]
    np.testing.assert_allclose(confidence.predicted_iou, state.confidence[0], atol=1e-4 if exact else 0.02)
    np.testing.assert_allclose(confidence.object_score, state.confidence[1], atol=1e-3 if exact else 0.2)
    return clicks


STARTS: dict[str, Given] = {
    "point": POINT[0],
    "points": POINTS[0],
    "box": prompt("femur", 5, [], [], [22, 3, 61, 33]),
    "mask": prompt("femur", 5, [], [], mask=ring((20, 40), 15, 0)),
    "first slice": prompt("femur", 0, [(40.25, 20.5)], [1]),
    "last slice": prompt("femur", DEPTH - 1, [(40.25, 20.5)], [1]),
    "several slices": [prompt("femur", 3, [(40.25, 20.5)], [1]), prompt("femur", 8, [], [], [22, 3, 61, 33])],
}


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", STARTS)
def test_video_schemes_equal_the_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, kind: str, reset: bool
) -> None:
    found = corrected(sam2, frames, {"it": STARTS[kind]}, REFERENCES, "video", reset=reset)
    state = OfficialState(video_predictor, resized(sam2, frames), STARTS[kind], reset)
    clicks = assert_rounds_equal(found, "it", "femur", REFERENCES["femur"], state, exact=True)
    assert len(clicks) == CLICKS


def with_error(mask: np.ndarray, index: int, label: int) -> np.ndarray:
    """A reference that differs from a mask, bool (slice, y, x), on one slice alone, where it asks for a click."""
    reference = mask.copy()
    click = click_on_slice(np.zeros(SIZE, bool), mask[index] if label == 0 else ~mask[index], SPACING[1:], index)
    assert click is not None
    around = slice(max(0, click.y - 4), click.y + 5), slice(max(0, click.x - 4), click.x + 5)
    reference[index][around] = bool(label)
    return reference


# The prompted slice, tracked ones ahead and behind, the first and the last; positive and negative clicks.
FIRST_CLICKS = [
    ("box", 5, 1),
    ("box", 5, 0),
    ("mask", 5, 1),
    ("mask", 5, 0),
    ("mask", 7, 0),
    ("box", 4, 1),
    ("box", 2, 0),
    ("mask", 0, 1),
    ("box", DEPTH - 1, 1),
    ("first slice", 6, 0),
    ("first slice", 0, 1),
    ("last slice", 8, 1),
    ("several slices", 6, 0),
    ("several slices", 8, 1),
    ("several slices", 2, 1),
]


class MasksBefore(dict[tuple[str, bool], np.ndarray]):
    """The femur before any click, bool (slice, y, x), by kind of prompt and whether directions are reset."""

    def __init__(self, model: Sam2Model, frames: np.ndarray) -> None:
        self.model, self.frames = model, frames

    def __missing__(self, key: tuple[str, bool]) -> np.ndarray:
        kind, reset = key
        first = corrected(self.model, self.frames, {"it": STARTS[kind]}, REFERENCES, "video", clicks=0, reset=reset)
        return self.setdefault(key, unpack_bits(first.masks["it"]["femur"], SIZE[1]))


@pytest.fixture(scope="module")
def masks_before(sam2: Sam2Model, frames: np.ndarray) -> MasksBefore:
    return MasksBefore(sam2, frames)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("kind", "index", "label"), FIRST_CLICKS)
def test_a_click_on_any_slice_equals_the_video_predictor(
    sam2: Sam2Model,
    masks_before: MasksBefore,
    video_predictor: SAM2VideoPredictor,
    frames: np.ndarray,
    kind: str,
    index: int,
    label: int,
    reset: bool,
) -> None:
    given = STARTS[kind]
    reference = with_error(masks_before[kind, reset], index, label)
    found = corrected(sam2, frames, {"it": given}, {"femur": reference}, "video", clicks=2, reset=reset)
    state = OfficialState(video_predictor, resized(sam2, frames), given, reset)
    clicks = assert_rounds_equal(found, "it", "femur", reference, state, exact=True)
    assert (clicks[0].slice, clicks[0].label) == (index, label)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("kind", ["point", "mask"])
def test_sure_masks_equal_the_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, kind: str
) -> None:
    """Logits are cut off; and where a single mask would be stable, a slice's first click still chooses among three."""
    with sure_masks(sam2.module, video_predictor):
        found = corrected(sam2, frames, {"it": STARTS[kind]}, REFERENCES, "video")
        state = OfficialState(video_predictor, resized(sam2, frames), STARTS[kind], reset=False)
        assert_rounds_equal(found, "it", "femur", REFERENCES["femur"], state, exact=True)


@contextmanager
def faint_objects(*modules: torch.nn.Module) -> Iterator[None]:
    """Models that see their object on some slices only; elsewhere their masks are empty."""
    heads = [module.get_submodule("sam_mask_decoder.pred_obj_score_head.layers.2") for module in modules]
    before = [{name: value.detach().clone() for name, value in head.state_dict().items()} for head in heads]
    with torch.no_grad():
        for head in heads:
            head.weight.mul_(50)
            head.bias.fill_(5.9)
    yield
    for head, state in zip(heads, before, strict=True):
        head.load_state_dict(state)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("reset", [False, True])
def test_clicks_on_empty_predictions_equal_the_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, reset: bool
) -> None:
    with faint_objects(sam2.module, video_predictor):
        found = corrected(sam2, frames, {"it": STARTS["box"]}, REFERENCES, "video", clicks=5, reset=reset)
        state = OfficialState(video_predictor, resized(sam2, frames), STARTS["box"], reset)
        rounds = rounds_of(found, "it", "femur")
        clicks = []
        for number, mask in enumerate(rounds):
            if number:
                (click,) = clicks_of(found, "it", "femur", number)
                clicks.append(click)
                state.click(click)
            assert (mask == state.mask).all()
    assert any(not rounds[number, click.slice].any() for number, click in enumerate(clicks))
    assert found.masks["it"]["femur"].any()


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
def test_corrections_in_a_deep_volume_equal_the_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray
) -> None:
    """Deeper than memory and pointers reach, so that in every round both passes move side by side in the end."""
    deep = np.concatenate([frames, frames[::-1], frames, frames[::-1]])
    reference = REFERENCES["femur"]
    references = {"femur": np.concatenate([reference, reference[::-1], reference, reference[::-1]])}
    given = prompt("femur", 20, [], [], [30, 8, 66, 33])
    told: list[tuple[str, int, int, str]] = []
    found = corrected(
        sam2, deep, {"it": [given]}, references, "video", clicks=3, progress=lambda *step: told.append(step)
    )
    state = OfficialState(video_predictor, resized(sam2, deep), given, reset=False)
    clicks = assert_rounds_equal(found, "it", "femur", references["femur"], state, exact=True)
    assert len({click.slice for click in clicks}) == 3
    encoded = [step for step in told if step[3] == "slices encoded (corrections follow)"]
    assert encoded[-1][:3] == ("knee", len(deep), len(deep))
    again = told[len(encoded) :]
    kinds = [f"slices tracked again (correction {number} of at most 3)" for number in (1, 2, 3)]
    assert list(dict.fromkeys(what for *_, what in again)) == kinds
    done = [done for _, done, _, _ in again]
    assert done == sorted(done)
    assert done[0] == 0
    # Both passes move side by side: two slices in a turn. Slices with prompts are not tracked, so that less is left.
    assert {(volume, total >= 3 * len(deep) - 12) for volume, _, total, _ in again} == {("knee", True)}
    assert 3 * len(deep) - 14 <= done[-1] < again[-1][2] <= 3 * len(deep)


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
@pytest.mark.parametrize("name", MEMORY_SETTINGS)
def test_corrections_follow_the_settings_of_memory(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray, name: str
) -> None:
    """More prompted slices than attention takes, for one: corrected slices count as prompted ones."""
    settings = MEMORY_SETTINGS[name]
    with loud_pointers(sam2.module, video_predictor), set_to(settings, sam2, video_predictor):
        given = STARTS["mask" if "use_mask_input_as_output_without_sam" in settings else "box"]
        found = corrected(sam2, frames, {"it": given}, REFERENCES, "video", clicks=5)
        state = OfficialState(video_predictor, resized(sam2, frames), given, reset=False)
        clicks = assert_rounds_equal(found, "it", "femur", REFERENCES["femur"], state, exact=True)
    assert len({click.slice for click in clicks}) > 2


@pytest.mark.usefixtures("resized_in_two_threads", "one_by_one")
def test_corrections_of_filled_masks_equal_the_video_predictor(
    sam2: Sam2Model, video_predictor: SAM2VideoPredictor, frames: np.ndarray
) -> None:
    """The logits that a click starts from are those of the mask with its holes filled."""
    scheme = {"it": Scheme(predictor="video", point="centroid", corrections=Corrections(clicks=CLICKS))}
    volume = LoadedVolume("knee", frames, SIZE, {"it": POINT[:1]}, known(REFERENCES))
    (found,) = segment_volumes(sam2, [volume], scheme, 4, hole_area=100)
    with (
        mock.patch.object(video_predictor, "fill_hole_area", 100),
        mock.patch("sam2.utils.misc.get_connected_components", eight_connected),
    ):
        state = OfficialState(video_predictor, resized(sam2, frames), POINT[0], reset=False)
        assert_rounds_equal(found, "it", "femur", REFERENCES["femur"], state, exact=True)


TOGETHER: dict[str, Given] = {
    "point": POINT,
    "points": POINTS,
    "box": BOX,
    "mask": STARTS["mask"],
    "several": STARTS["several slices"],
    "last": STARTS["last slice"],
}


@pytest.mark.parametrize("reset", [False, True])
def test_trained_model_in_lockstep_equals_the_video_predictor(frames: np.ndarray, reset: bool) -> None:
    """The demo's own checkpoint: nine objects of six schemes as one batch, each against a state of its own."""
    model, predictor = trained_sam2()
    images = resized(model, frames)
    found = corrected(model, frames, TOGETHER, REFERENCES, "video", clicks=2, reset=reset)
    for name, given in TOGETHER.items():
        for structure in found.rounds[name]:
            prompts = [each for each in (given if isinstance(given, list) else [given]) if each.structure == structure]
            state = OfficialState(predictor, images, prompts, reset)
            assert_rounds_equal(found, name, structure, REFERENCES[structure], state, exact=False)
        assert len(found.seconds_rounds[name]) == 3
        assert sum(found.seconds_rounds[name]) == pytest.approx(found.seconds_prompt[name])


def early(model: Sam2Model, frames: np.ndarray, reset: bool) -> tuple[Segmented, dict[str, np.ndarray]]:
    """Objects of which one is right from the start, and one has an error on the last slice alone."""
    prompts = {"it": [*POINT, prompt("patella", 7, [(12.0, 30.0)], [1])]}
    first = corrected(model, frames, prompts, {}, "video", clicks=0, reset=reset)
    references = {name: unpack_bits(bits, SIZE[1]) for name, bits in first.masks["it"].items()}
    references["femur"] = REFERENCES["femur"]
    references["tibia"] = with_error(references["tibia"], DEPTH - 1, 1)
    return corrected(model, frames, prompts, references, "video", reset=reset), references


@pytest.mark.parametrize("reset", [False, True])
def test_an_object_without_error_is_finished(tmp_path: Path, frames: np.ndarray, reset: bool) -> None:
    """It keeps its masks, the others go on; what they become is what they become alone."""
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    found, references = early(model, frames, reset)
    assert len(found.rounds["it"]["patella"]) == 1
    assert len(found.rounds["it"]["femur"]) == CLICKS + 1
    assert (unpack_bits(found.masks["it"]["patella"], SIZE[1]) == references["patella"]).all()
    assert {click.structure for click in found.clicks["it"]} == {"femur", "tibia"}
    for given in POINT:
        alone = corrected(model, frames, {"it": given}, references, "video", reset=reset)
        name = given.structure
        for mask, expected in zip(rounds_of(found, "it", name), rounds_of(alone, "it", name), strict=True):
            assert_same(mask, expected)


def test_a_finished_object_is_propagated_no_more(sam2: Sam2Model, frames: np.ndarray) -> None:
    """Its last round is its first: nothing of it is decoded again."""
    prompts = {"it": prompt("femur", 5, [(40.25, 20.5)], [1])}
    first = corrected(sam2, frames, prompts, {}, "video", clicks=0)
    reference = {"femur": unpack_bits(first.masks["it"]["femur"], SIZE[1])}
    with mock.patch.object(sam2.module, "_forward_sam_heads", wraps=sam2.module._forward_sam_heads) as heads:
        found = corrected(sam2, frames, prompts, reference, "video")
    assert heads.call_count == DEPTH
    assert found.clicks == {"it": []}
    assert found.rounds["it"]["femur"].shape[0] == len(found.seconds_rounds["it"]) == 1


@pytest.mark.parametrize("little_memory", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_volumes_in_lockstep_equal_volumes_alone(
    tmp_path: Path, frames: np.ndarray, reset: bool, little_memory: bool
) -> None:
    """Ragged depths and frame sizes, schemes with and without corrections, of different length, image and video.

    Each slice is encoded once, unless there is too little memory for all of them.
    """
    model = loaded_sam2(saved_sam2(tmp_path / "sam2.pt", memory=1))
    schemes = {
        "image": Scheme(predictor="image", point="centroid", corrections=Corrections(clicks=2)),
        "video": Scheme(predictor="video", point="centroid", corrections=Corrections(clicks=3)),
        "plain": Scheme(predictor="video", point="centroid"),
        "other": Scheme(predictor="video", box=True, corrections=Corrections(clicks=1)),
    }

    def volume(name: str, depth: int, width: int, first: int, second: int) -> LoadedVolume:
        point, other = [(40.25, 20.5)], [(52.0, 55.75)]
        video = [prompt("femur", first, point, [1]), prompt("tibia", second, other, [1])]
        image = [prompt("femur", index, point, [1]) for index in range(0, depth, 3)]
        references = {name: np.ascontiguousarray(mask[:depth, :, :width]) for name, mask in REFERENCES.items()}
        box = [prompt("tibia", second, [], [], [30, 40, 70, 71])]
        prompts = {"image": image, "video": video, "plain": video, "other": box}
        return LoadedVolume(
            name, np.ascontiguousarray(frames[:depth, :, :width]), (SIZE[0], width), prompts, known(references)
        )

    volumes = [volume("a", DEPTH, 96, 5, 2), volume("b", 1, 96, 0, 0), volume("c", 9, 80, 8, 0)]
    kept = {"FEATURES_KEPT": 2, "FEATURES_KEPT_EACH": 2} if little_memory else {}
    with (
        mock.patch.multiple(engine, **kept) if kept else nullcontext(),
        mock.patch.object(model, "encode", wraps=model.encode) as encode,
    ):
        together = segment_volumes(model, volumes, schemes, 4, reset)
    encoded = sum(len(call.args[0]) for call in encode.call_args_list)
    assert (encoded > DEPTH + 1 + 9) == little_memory
    for given, segmented in zip(volumes, together, strict=True):
        (alone,) = segment_volumes(model, [given], schemes, 1, reset)
        assert segmented.rounds.keys() == {"image", "video", "other"}
        assert segmented.clicks == alone.clicks
        for scheme, masks in segmented.masks.items():
            for structure, bits in masks.items():
                ours, expected = (unpack_bits(each, given.size[1]) for each in (bits, alone.masks[scheme][structure]))
                assert dice(ours, expected) >= 0.999 if expected.any() else not ours.any()


@pytest.mark.parametrize("reset", [False, True])
def test_one_slice_volume(sam2: Sam2Model, frames: np.ndarray, reset: bool) -> None:
    reference = known({"femur": REFERENCES["femur"][:1]})
    volume = LoadedVolume("knee", frames[:1], SIZE, {"it": [STARTS["first slice"]]}, reference)
    scheme = {"it": Scheme(predictor="video", point="centroid", corrections=Corrections(clicks=CLICKS))}
    (found,) = segment_volumes(sam2, [volume], scheme, 1, reset)
    assert [click.slice for click in found.clicks["it"]] == [0] * CLICKS


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_corrections_in_bfloat16(sam: SamModel, sam2_checkpoint: Path, frames: np.ndarray, family: str) -> None:
    """All types fit together; what comes out is much the same."""
    model: PromptableModel = sam if family == "sam" else loaded_sam2(sam2_checkpoint)
    with mock.patch.object(model, "precision", "bfloat16"):
        found = corrected(model, frames, {"it": POINTS}, REFERENCES, "image")
        if family == "sam2":
            found = corrected(model, frames, {"it": BOX}, REFERENCES, "video")
    assert found.masks["it"]["femur"].any()
    assert np.isfinite(found.confidence["it"]["femur"].predicted_iou[5])


def test_memory_grows_by_corrected_slices_alone(sam2: Sam2Model, frames: np.ndarray) -> None:
    """The bank of an object that can be corrected has one place per slice, however many clicks there are."""
    for clicks in (1, 5):
        with mock.patch.object(memory_tracking, "MemoryBank", wraps=MemoryBank) as bank:
            found = corrected(sam2, frames, {"it": POINT[:1]}, REFERENCES, "video", clicks=clicks)
        assert len(found.clicks["it"]) == clicks
        assert bank.call_args.args[2] == DEPTH


# The reference


def test_nobody_clicks_on_ignored_voxels() -> None:
    ignored = np.zeros((DEPTH, *SIZE), bool)
    ignored[:, :, 48:] = True
    mask, reference = np.zeros((DEPTH, *SIZE), bool), np.zeros((DEPTH, *SIZE), bool)
    mask[:, 5:60, 50:90] = True
    reference[5, 10:13, 44:80] = True
    bits = np.packbits(mask, axis=-1)
    seen = known({"femur": reference}, ignored=np.packbits(ignored, axis=-1))
    assert seen.click_in_volume("femur", bits, SIZE[1], presence=False) == Click(5, x=45, y=11, label=1)
    assert seen.click_on_slice("femur", 5, mask[5]) == Click(5, x=45, y=11, label=1)
    assert seen.click_on_slice("femur", 4, mask[4]) is None


def test_masks_that_presence_empties_are_not_corrected() -> None:
    mask, reference = np.zeros((DEPTH, *SIZE), bool), np.zeros((DEPTH, *SIZE), bool)
    mask[2:9, 5:60, 50:90] = True
    reference[5, 5:60, 50:90] = True
    reference[5, 10, 10] = True
    bits, seen = np.packbits(mask, axis=-1), known({"femur": reference})
    without, with_presence = (seen.click_in_volume("femur", bits, SIZE[1], presence=each) for each in (False, True))
    assert without is not None
    assert without.label == 0
    assert with_presence == Click(5, x=10, y=10, label=1)
