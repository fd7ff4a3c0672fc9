"""Deviations from the paper are what the settings say."""

from __future__ import annotations

from typing import Any

from volprompt.report.deviations import deviations, prompts_in_words
from volprompt.report.shards import StudyDesign
from volprompt.settings.config import Frames, Inference
from volprompt.settings.schemes import Scheme


def found(schemes: dict[str, Scheme], precision: str = "bfloat16", **changes: Any) -> dict[str, tuple[str, str]]:
    design = StudyDesign(
        **{
            "labels": {"femur": [1], "tibia": [3]},
            "scored": ["femur", "tibia"],
            "schemes": schemes,
            "experiments": {"e": (["m"], list(schemes))},
            "models": {"m": {"family": "sam", "architecture": "vit_b"}},
            "frames": Frames(coding="jpeg75"),
            **changes,
        }
    )
    return {row.setting: (row.paper, row.here) for row in deviations(design, 488, [precision])}


PAPER = {"point": Scheme(predictor="image", point="centroid"), "box": Scheme(predictor="image", box=True)}


def test_the_papers_image_schemes_depart_in_the_data_alone() -> None:
    assert list(found(PAPER)) == ["Volumes"]


def test_what_departs_in_frames_precision_and_models() -> None:
    frames = Frames(axis="axial", intensity_percentiles=(1, 99))
    rows = found(
        PAPER, "float32", frames=frames, models={"own": {"family": "sam2", "architecture": "configs/sam2.1/x"}}
    )
    assert rows["Frame coding"] == ("JPEG at quality 75", "lossless")
    assert rows["Slice axis"] == ("sagittal", "axial")
    assert rows["Intensity percentiles"] == ("0.5 and 99.5", "1.0 and 99.0")
    assert rows["Precision"][1] == "float32"
    assert rows["Model of own"] == ("SAM ViT-B, L, H; SAM 2.0 tiny, small, base+, large", "sam2, configs/sam2.1/x")


def test_the_papers_models_do_not_depart() -> None:
    sam = [("sam", size) for size in ("vit_b", "vit_l", "vit_h")]
    sam2 = [("sam2", f"configs/sam2/sam2_hiera_{size}.yaml") for size in ("t", "s", "b+", "l")]
    models = {name: {"family": family, "architecture": name} for family, name in [*sam, *sam2]}
    assert list(found(PAPER, models=models)) == ["Volumes"]
    newer = "configs/sam2.1/sam2.1_hiera_t.yaml"
    models = {"newer": {"family": "sam2", "architecture": newer}, "other": {"family": "other", "architecture": "vit_b"}}
    rows = found(PAPER, models=models)
    assert rows["Model of newer"][1] == f"sam2, {newer}"
    assert rows["Model of other"][1] == "other, vit_b"


def test_video_schemes_depart_by_resize_and_holes() -> None:
    scheme = Scheme(predictor="video", point="click")
    assert list(found({"v": scheme})) == ["Volumes", "Resize before the video encoder", "Hole filling"]
    rows = found({"v": scheme}, inference=Inference(reset_between_directions=True))
    assert rows["Directions"][1] == "independent of each other"


def test_schemes_that_depart_alike_share_a_row() -> None:
    one = Scheme(predictor="video", point=["click", "centroid"], slice="nearest")
    more = Scheme(predictor="video", point=["click", "centroid"], slice="nearest", negatives="others")
    rows = found({"one": one, "more": more}, labels={"femur": [1], "tibia": [3], "patella": []})
    assert rows["Points of one, more"][1] == "click, else centroid"
    assert rows["Prompted slice of one, more"][1] == "the slice nearest the middle with every needed prompt"
    assert rows["Tracked objects of one, more"][1] == "femur, tibia; not patella"


def test_a_scheme_that_no_experiment_uses_does_not_depart() -> None:
    schemes = {**PAPER, "best": Scheme(predictor="image", point="interior", multimask=True)}
    assert "Masks of best" in found(schemes)
    assert list(found(schemes, experiments={"e": (["m"], ["point"])})) == ["Volumes"]


def test_schemes_in_words() -> None:
    assert prompts_in_words(PAPER["box"]).startswith("Per structure a tight box of the reference, on every slice")
    video = Scheme(predictor="video", point=["click", "centroid"], negatives="others", slice={"index": 80})
    assert prompts_in_words(video) == (
        "Per structure one positive point (click, else centroid), the other structures' points as negatives, "
        "on index 80; memory carries it both ways."
    )
    assert prompts_in_words(Scheme(predictor="volume", box=True)) == (
        "Per structure a tight box of the reference, on the middle slice; the model takes the whole volume."
    )


def test_a_scheme_that_propagates_boxes() -> None:
    scheme = Scheme(predictor="image", slice="largest", box=True, propagate="box", presence=True)
    rows = found({"carried": scheme})
    assert list(rows) == [
        "Volumes",
        "Propagation of carried",
        "Slices with the structure, carried",
        "Prompted slice of carried",
    ]
    assert rows["Propagation of carried"][1] == "by the box of the last slice's mask, widened by 1 mm"
    assert prompts_in_words(Scheme(predictor="image", box=True, propagate="box", widen_mm=0.5)) == (
        "Per structure a tight box of the reference, on the middle slice; from there both ways by the box of the last "
        "slice's mask, widened by 0.5 mm."
    )


def test_a_scheme_of_whole_volumes() -> None:
    rows = found({"whole": Scheme(predictor="volume", slice="largest", box=True)})
    assert list(rows) == ["Volumes", "Propagation of whole", "Prompted slice of whole"]
    assert rows["Propagation of whole"] == ("by memory, or a prompt on every slice", "the model takes the whole volume")
