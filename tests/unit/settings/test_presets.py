"""Presets: what one word sets, what overrides it, and that what is used can be listed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from volprompt.settings.config import Inference
from volprompt.settings.presets import preset_settings
from volprompt.settings.reading import ConfigurationError, read_settings

STUDY: dict[str, Any] = {
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}},
    "schemes": {
        "point": {"predictor": "image"},
        "box": {"predictor": "image", "box": True},
        "point_video": {"predictor": "video"},
        "three_points_video": {"predictor": "video", "negatives": "others"},
    },
    "models": {"tiny": {"family": "sam2", "architecture": "configs/sam2/sam2_hiera_t.yaml", "checkpoint": "tiny.pt"}},
    "experiments": {"all": {"models": ["tiny"], "schemes": ["point", "box", "point_video", "three_points_video"]}},
}


def study(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STUDY), **changes}


def test_the_paper_in_one_word() -> None:
    """Every switch of the table of methods that the authors' code sets otherwise than the defaults, or as they are."""
    settings = read_settings(study(preset="paper"))
    assert settings.frames.coding == "jpeg75"
    assert settings.frames.intensity_percentiles == (0.5, 99.5)
    assert settings.inference.precision == "bfloat16"
    assert settings.inference.reset_between_directions is False
    assert settings.inference.fill_holes == 8
    assert settings.inference.video_resize == "bicubic"
    schemes = settings.schemes
    assert (schemes["point"].origins, schemes["point"].multimask) == (("centroid",), False)
    assert (schemes["box"].origins, schemes["box"].box) == ((), True)
    for name in ("point_video", "three_points_video"):
        assert schemes[name].origins == ("click",)
        assert schemes[name].slices == ("middle",)
        assert not schemes[name].presence
    assert schemes["three_points_video"].negatives == "others"


def test_best_practice_in_one_word() -> None:
    settings = read_settings(study(preset="best"))
    assert settings.frames.coding == "lossless"
    assert settings.inference == Inference(reset_between_directions=True)
    schemes = settings.schemes
    assert (schemes["point"].origins, schemes["point"].multimask) == (("interior",), "best")
    assert not schemes["box"].multimask
    assert (schemes["point_video"].origins, schemes["point_video"].slices) == (("interior",), ("largest",))


@pytest.mark.parametrize(("preset", "chosen"), [("paper", "middle"), ("best", "largest")])
def test_propagated_boxes_set_out_like_video_schemes(preset: str, chosen: str) -> None:
    """From the same slice; with one mask, since most of their prompts are boxes."""
    schemes = {"point": {"predictor": "image", "propagate": "box"}, "box": {"predictor": "image", "box": True}}
    schemes["box"]["propagate"] = "box"
    experiments = {"all": {"models": ["tiny"], "schemes": ["point", "box"]}}
    settings = read_settings(study(preset=preset, schemes=schemes, experiments=experiments))
    for scheme in settings.schemes.values():
        assert (scheme.slices, scheme.multimask, scheme.presence) == ((chosen,), False, False)
    assert "schemes.box.slice" in {setting.key for setting in preset_settings(settings)}


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_each_setting_is_overridden_by_its_key(preset: str) -> None:
    config = study(preset=preset, frames={"coding": "lossless"}, inference={"fill_holes": 3, "precision": "float32"})
    config["schemes"]["point_video"] |= {"point": ["click", "centroid"], "slice": "nearest", "presence": True}
    settings = read_settings(config)
    assert settings.frames.coding == "lossless"
    assert (settings.inference.fill_holes, settings.inference.precision) == (3, "float32")
    assert settings.inference.video_resize == ("bicubic" if preset == "paper" else "shared")  # as the preset says
    scheme = settings.schemes["point_video"]
    assert (scheme.origins, scheme.slices, scheme.presence) == (("click", "centroid"), ("nearest",), True)
    shown = {setting.key: setting for setting in preset_settings(settings)}
    assert shown["inference.fill_holes"].overridden
    assert shown["inference.fill_holes"].used == 3
    assert not shown["inference.video_resize"].overridden
    assert shown["schemes.point_video.slice"].used == "nearest"
    assert shown["schemes.point_video.point"].used == ["click", "centroid"]


def test_what_is_used_can_be_listed() -> None:
    rows = [
        (setting.key, setting.preset, setting.used) for setting in preset_settings(read_settings(study(preset="paper")))
    ]
    assert all(wanted == used for _, wanted, used in rows)
    assert rows[:2] == [
        ("frames.intensity_percentiles", [0.5, 99.5], [0.5, 99.5]),
        ("frames.coding", "jpeg75", "jpeg75"),
    ]
    keys = [key for key, _, _ in rows]
    assert {"schemes.point.point", "schemes.point.multimask", "schemes.point_video.slice"} < set(keys)
    assert "schemes.box.point" not in keys
    assert "schemes.box.multimask" not in keys
    assert len(keys) == len(set(keys)) == 2 + 4 + 2 + 3 + 3
    assert preset_settings(read_settings(study(schemes={**STUDY["schemes"], **POINTS}))) == []


POINTS = {
    "point": {"predictor": "image", "point": "centroid"},
    "point_video": {"predictor": "video", "point": "click"},
    "three_points_video": {"predictor": "video", "point": "click", "negatives": "others"},
}


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(study(preset="papers", schemes={**STUDY["schemes"], **POINTS}))
    assert caught.value.faults == ["preset: Input should be 'paper' or 'best' (found 'papers')"]


def test_a_preset_hides_no_fault() -> None:
    config = study(preset="paper", frames=["sagittal"], inference={"fil_holes": 2})
    config["schemes"]["odd"] = "point"
    config["schemes"]["point"]["predictor"] = "images"
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    places = {fault.split(": ")[0] for fault in caught.value.faults}
    assert places == {"frames", "inference.fil_holes", "schemes.odd", "schemes.point.predictor"}
