"""Faults of keys and values, each with its place; the shipped configurations and their schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from volprompt.settings.config import json_schema
from volprompt.settings.reading import ConfigurationError, read_settings
from volprompt.settings.schemes import Scheme

CONFIG = Path(__file__).resolve().parents[3] / "config"
SMALL: dict[str, Any] = {
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}},
    "schemes": {
        "point": {"predictor": "image", "point": "centroid"},
        "point_video": {"predictor": "video", "point": ["click", "centroid"]},
    },
    "models": {"tiny": {"family": "sam2", "architecture": "configs/sam2/sam2_hiera_t.yaml", "checkpoint": "tiny.pt"}},
    "experiments": {"all": {"models": ["tiny"], "schemes": ["point", "point_video"]}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one value set; the path's parts are separated by dots."""
    config = copy.deepcopy(SMALL)
    *parents, last = path.split(".")
    place = config
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return config


def faults(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    return caught.value.faults


def test_defaults() -> None:
    settings = read_settings(SMALL)
    assert settings.frames.axis == "sagittal"
    assert settings.frames.intensity_percentiles == (0.5, 99.5)
    assert settings.frames.coding == "lossless"
    assert settings.max_failed_fraction == 0
    assert settings.structures["femur"].scored
    assert settings.schemes["point"].slice is None
    assert settings.schemes["point"].origins == ("centroid",)
    assert settings.schemes["point_video"].origins == ("click", "centroid")
    assert not settings.inference.reset_between_directions
    assert settings.scores.surface_tolerance_mm == 1.0


@pytest.mark.parametrize(("name", "more"), [("config.yaml", []), ("demo.yaml", ["corrected_video"])])
def test_shipped_configurations(name: str, more: list[str]) -> None:
    settings = read_settings(yaml.safe_load((CONFIG / name).read_text()))
    # The paper's four schemes, and its two experiments; the demo shows corrections too.
    assert list(settings.schemes) == ["point", "box", "point_video", "three_points_video", *more]
    assert {name: experiment.schemes for name, experiment in settings.experiments.items()} == {
        "sam1": ["point", "box"],
        "sam2": ["point", "point_video", "three_points_video", *more],
    }
    assert [name for name, structure in settings.structures.items() if structure.scored] == ["femur", "tibia"]


def test_true_means_the_best_of_three_masks() -> None:
    settings = read_settings(changed("schemes.point.multimask", True))
    assert settings.schemes["point"].multimask == "best"
    assert faults(changed("schemes.point.multimask", "last"))[0].startswith("schemes.point.multimask: ")


def test_the_shipped_second_anatomy() -> None:
    settings = read_settings(yaml.safe_load((CONFIG / "spinal_cord.yaml").read_text()))
    assert list(settings.structures) == ["cord"]
    assert settings.schemes["mask_video"].mask
    assert settings.schemes["point"].origins == ("interior",)  # from its preset


def test_demo_writes_where_the_demo_is_looked_for() -> None:
    assert read_settings(yaml.safe_load((CONFIG / "demo.yaml").read_text())).results == "results/demo"


def test_schema_file_is_up_to_date() -> None:
    assert (CONFIG / "schema" / "config.schema.json").read_text() == json_schema(), "run `make schema`"


@pytest.mark.parametrize("name", ["config.yaml", "demo.yaml", "spinal_cord.yaml"])
def test_shipped_configurations_fit_the_schema(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CONFIG / "schema" / "config.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((CONFIG / name).read_text()), schema)
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(changed("frames.colour", "grey"), schema)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("frame", {}, "frame: unknown key; did you mean 'frames'?"),
        ("frames.axes", "axial", "frames.axes: unknown key; did you mean 'axis'?"),
        ("structures.femur.label", [1], "structures.femur.label: unknown key; did you mean 'labels'?"),
        ("schemes.point.boxes", True, "schemes.point.boxes: unknown key; did you mean 'box'?"),
        ("schemes.point.wild", True, "schemes.point.wild: unknown key; known: predictor, point, points, box, "),
        ("schemes.point_video.slice", {"indx": 3}, "schemes.point_video.slice.indx: unknown key; did you mean 'index'"),
        (
            "schemes.point.noise",
            {"point_mm": 3},
            "schemes.point.noise.point_mm: unknown key; did you mean 'points_mm'?",
        ),
        ("models.tiny.checkpont", "x.pt", "models.tiny.checkpont: unknown key; did you mean 'checkpoint'?"),
        ("experiments.all.model", ["tiny"], "experiments.all.model: unknown key; did you mean 'models'?"),
        ("inference.devices", "cpu", "inference.devices: unknown key; did you mean 'device'?"),
        ("scores.tolerance", 1, "scores.tolerance: unknown key"),
        ("report.titel", "x", "report.titel: unknown key; did you mean 'title'?"),
    ],
)
def test_unknown_keys(path: str, value: Any, fault: str) -> None:
    assert any(found.startswith(fault) for found in faults(changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value", "place", "part"),
    [
        ("shards", 0, "shards", "found 0"),
        ("max_failed_fraction", 1.5, "max_failed_fraction", "found 1.5"),
        ("frames.axis", "saggital", "frames.axis", "found 'saggital'"),
        ("frames.axis", 3, "frames.axis", "found 3"),
        ("frames.coding", "jpeg", "frames.coding", "found 'jpeg'"),
        ("frames.intensity_percentiles", [99.5, 0.5], "frames", "99.5 and 0.5; expected 0 <= low < high <= 100"),
        ("frames.intensity_percentiles", [0, 101], "frames", "0.0 and 101.0; expected 0 <= low < high <= 100"),
        ("frames.intensity_percentiles", [50, 50], "frames", "50.0 and 50.0; expected 0 <= low < high <= 100"),
        ("frames.intensity_percentiles", [50], "frames.intensity_percentiles.1", "is required"),
        ("frames.window", [240, -160], "frames", "window is 240.0 and -160.0; expected low < high"),
        ("ignore.labels", [0], "ignore.labels.0", "found 0"),
        ("structures", {}, "structures", "at least 1"),
        ("structures.femur.labels", [], "structures.femur", "has no labels to be scored against"),
        ("structures.femur.labels", 1, "structures.femur.labels", "found 1"),
        ("structures.femur.labels", ["one"], "structures.femur.labels.0", "found 'one'"),
        ("schemes.point.predictor", "memory", "schemes.point.predictor", "found 'memory'"),
        ("schemes.point.point", "centre", "schemes.point.point", "found 'centre'"),
        ("schemes.point.point", None, "schemes.point", "gives no prompt: set point, box or mask"),
        ("schemes.point.slice", "middle", "schemes.point", "slice belongs to video and volume schemes"),
        ("schemes.point.share_slice", True, "schemes.point", "share_slice says how nearest and largest choose"),
        (
            "schemes.point.presence",
            True,
            "schemes.point",
            "presence belongs to video and volume schemes and to image schemes with",
        ),
        ("schemes.point.propagate", "point", "schemes.point.propagate", "found 'point'"),
        ("schemes.point.widen_mm", 3, "schemes.point", "widen_mm says how propagated boxes grow; set propagate: box"),
        ("schemes.point_video.propagate", "box", "schemes.point_video", "propagate belongs to image schemes"),
        (
            "schemes.carried",
            {"predictor": "image", "box": True, "propagate": "box", "widen_mm": -1},
            "schemes.carried.widen_mm",
            "found -1",
        ),
        (
            "schemes.carried",
            {"predictor": "image", "box": True, "propagate": "box", "corrections": {"clicks": 2}},
            "schemes.carried",
            "propagate has no corrections: a click would have to change every later box",
        ),
        (
            "schemes.carried",
            {"predictor": "image", "mask": True, "propagate": "box"},
            "schemes.carried",
            "mask belongs to video and volume schemes",
        ),
        ("schemes.point_video.multimask", True, "schemes.point_video", "multimask belongs to image schemes"),
        ("schemes.point_video.mask", True, "schemes.point_video", "a mask is a prompt by itself"),
        (
            "schemes.seen",
            {"predictor": "image", "mask": True},
            "schemes.seen",
            "mask belongs to video and volume schemes",
        ),
        ("schemes.point.noise", {"points_mm": -1}, "schemes.point.noise.points_mm", "found -1"),
        ("schemes.point.noise", {"boxes_mm": 3}, "schemes.point", "noise moves nothing"),
        ("schemes.point.corrections", {"clicks": 0}, "schemes.point.corrections.clicks", "found 0"),
        ("schemes.point.corrections", {"click": 3}, "schemes.point.corrections.click", "did you mean 'clicks'"),
        ("schemes.point.noise", {"points_mm": 3, "repetitions": 0}, "schemes.point.noise.repetitions", "found 0"),
        ("schemes.point_video.slice", [], "schemes.point_video.slice", "at least 1"),
        ("schemes.point_video.slice", ["middle", {"fraction": 2}], "schemes.point_video.slice.1.fraction", "found 2"),
        ("schemes.point_video.slice", "first", "schemes.point_video.slice", "found 'first'"),
        ("schemes.point_video.slice", {"index": -1}, "schemes.point_video.slice.index", "found -1"),
        ("schemes.point_video.slice", {"fraction": 1.1}, "schemes.point_video.slice.fraction", "found 1.1"),
        ("schemes.point_video.slice", {}, "schemes.point_video.slice", "give either index or fraction"),
        (
            "schemes.point_video.slice",
            {"index": 1, "fraction": 0.5},
            "schemes.point_video.slice",
            "give either index or fraction",
        ),
        (
            "schemes.box",
            {"predictor": "image", "box": True, "negatives": "others"},
            "schemes.box",
            "negatives need point",
        ),
        ("models.tiny.family", "sam4", "models.tiny.family", "found 'sam4'"),
        ("models.tiny.checkpoint", None, "models.tiny", "give either checkpoint or checkpoints"),
        ("models.tiny.image_size", 500, "models.tiny.image_size", "multiple of 32"),
        ("models.tiny.checkpoints", "runs/*.pt", "models.tiny", "give either checkpoint or checkpoints"),
        ("experiments.all.models", [], "experiments.all.models", "at least 1"),
        ("inference.device", "gpu", "inference.device", "found 'gpu'"),
        ("inference.precision", "float16", "inference.precision", "found 'float16'"),
        ("scores.surface_tolerance_mm", 0, "scores.surface_tolerance_mm", "found 0"),
        ("scores.surface_tolerance_mm", [1], "scores.surface_tolerance_mm", "valid number"),
        (
            "scores.surface_tolerance_mm",
            {"femur": True, "tibia": 1},
            "scores.surface_tolerance_mm",
            "than true or false",
        ),
        ("scores.border", "crop", "scores.border", "found 'crop'"),
    ],
)
def test_wrong_values(path: str, value: Any, place: str, part: str) -> None:
    found = faults(changed(path, value))
    assert any(fault.startswith(f"{place}: ") and part in fault for fault in found), found


@pytest.mark.parametrize("section", ["structures", "schemes", "models", "experiments"])
@pytest.mark.parametrize("name", ["a b", "a/b", "../a", "_a", "", "a\nb"])
def test_names_that_cannot_be_part_of_a_path(section: str, name: str) -> None:
    config = copy.deepcopy(SMALL)
    config[section][name] = next(iter(config[section].values()))
    assert any("becomes part of file names" in fault for fault in faults(config))


def test_repetitions_are_schemes_of_their_own() -> None:
    """Each with its seed, in the order of their numbers, wherever an experiment names the scheme."""
    config = changed("schemes.point.noise", {"points_mm": 3, "seed": 5, "repetitions": 3})
    settings = read_settings(config)
    assert list(settings.schemes) == ["point_1", "point_2", "point_3", "point_video"]
    assert settings.experiments["all"].schemes == ["point_1", "point_2", "point_3", "point_video"]
    found = [scheme.noise for name, scheme in settings.schemes.items() if name != "point_video"]
    assert [(noise.seed, noise.points_mm, noise.repetitions) for noise in found if noise] == [
        (5, 3, None),
        (6, 3, None),
        (7, 3, None),
    ]


def test_a_scheme_named_like_a_repetition() -> None:
    config = changed("schemes.point.noise", {"points_mm": 3, "repetitions": 2})
    config["schemes"]["point_2"] = config["schemes"]["point_video"]
    (fault,) = faults(config)
    assert fault.startswith("schemes.point.noise.repetitions: a repetition would be named 'point_2'")


def test_required_keys() -> None:
    assert faults({}) == [f"{key}: is required" for key in ("structures", "schemes", "models", "experiments")]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("structures.femur.labels", 1, "a list, such as [1] (found 1)"),
        ("structures.femur", [1], "a section, such as {labels: ...} (found [1])"),
        ("frames", "sagittal", "a section, such as {axis: ...} (found 'sagittal')"),
        ("schemes.point", "image", "a section, such as {predictor: ...} (found 'image')"),
    ],
)
def test_what_is_written_too_simply_is_told_how(path: str, value: Any, expected: str) -> None:
    assert f"{path}: Input should be {expected}" in faults(changed(path, value))


def test_all_faults_are_listed_at_once() -> None:
    config = changed("frames.axes", "axial")
    config["shards"] = 0
    del config["models"]["tiny"]["checkpoint"]
    config["structures"]["femur"]["labels"] = ["one"]
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    assert {fault.split(":")[0] for fault in caught.value.faults} == {
        "frames.axes",
        "shards",
        "models.tiny",
        "structures.femur.labels.0",
    }
    message = str(caught.value)
    assert message.startswith("The configuration has 4 faults:\n  - ")
    assert message.count("\n  - ") == 4


@pytest.mark.parametrize(
    ("tolerance", "fault"),
    [
        (
            {"femur": 1},
            "scores.surface_tolerance_mm: lacks tibia. Expected one number, or one for each of femur, tibia",
        ),
        (
            {"femur": 1, "patela": 0.5, "hip": 1},
            "scores.surface_tolerance_mm: lacks tibia; names patela, hip, and there is no such structure. "
            "Expected one number, or one for each of femur, tibia",
        ),
        ({}, "scores.surface_tolerance_mm: lacks femur, tibia. Expected one number, or one for each of femur, tibia"),
        ({"femur": 0, "tibia": 1}, "scores.surface_tolerance_mm.femur: Input should be greater than 0 (found 0)"),
        ({"femur": 0}, "scores.surface_tolerance_mm.femur: Input should be greater than 0 (found 0)"),
    ],
)
def test_faults_of_tolerances_by_structure(tolerance: dict[str, Any], fault: str) -> None:
    config = changed("scores.surface_tolerance_mm", tolerance)
    config["structures"]["patella"] = {"labels": [5], "scored": False}
    assert faults(config) == [fault]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (1, 1.0),
        ("2", 2.0),
        ({"tibia": 1, "femur": 1.0}, 1.0),
        ({"tibia": 2, "femur": 1, "patella": 3}, {"femur": 1.0, "tibia": 2.0}),
        ({"tibia": 2, "femur": 2, "patella": 3}, 2.0),
    ],
)
def test_a_tolerance_has_one_spelling(given: Any, plain: Any) -> None:
    config = changed("scores.surface_tolerance_mm", given)
    config["structures"]["patella"] = {"labels": [5], "scored": False}
    found = read_settings(config).scores.surface_tolerance_mm
    assert found == plain
    assert isinstance(found, dict) == isinstance(plain, dict)


def test_an_image_scheme_that_propagates_takes_what_a_prompted_slice_needs() -> None:
    scheme = Scheme(
        predictor="image", box=True, propagate="box", slice="largest", share_slice=True, presence=True, multimask=True
    )
    assert not scheme.prompts_every_slice
    assert (scheme.slices, scheme.multimask, scheme.widening) == (("largest",), "best", 1.0)
    assert Scheme(predictor="image", point="click", propagate="box", widen_mm=0).widening == 0
    assert Scheme(predictor="image", box=True).prompts_every_slice
    assert not Scheme(predictor="video", box=True).prompts_every_slice
