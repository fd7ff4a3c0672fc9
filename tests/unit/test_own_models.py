"""One's own models: the examples of docs/families.md, taken from that page, pass the check and run a study."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from volprompt import families
from volprompt.__main__ import command
from volprompt.checkpoints.catalogue import read_catalogue  # noqa: F401  (the room is loaded as in a run)
from volprompt.families import Family, UnknownFamily, adapter_file, families_of_packages, family_of
from volprompt.models.conformance import conformance
from volprompt.models.model import ArchitectureError
from volprompt.models.volume_model import VolumePrompts
from volprompt.prompts.candidates import extract_shard
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.segmentation.segment import segment_shard
from volprompt.settings.reading import ConfigurationError
from volprompt.study.identities import segment_settings
from volprompt.study.study import Study, read_study
from volprompt.volumes.convert import convert_shard

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
EXAMPLES = dict(re.findall(r"```python title=(\w+)\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
MODELS = {
    "image": "grey_image:GreyModel",
    "video": "grey_video:GreyVideoModel",
    "volume": "grey_volume:GreyVolumeModel",
}
SHAPE = (4, 20, 24)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's examples, a checkpoint of them, and a volume with a bright block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, code in EXAMPLES.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(code)
    torch.save({"tolerance": torch.tensor([40.0])}, "own.pt")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 5:15, 6:16] = 1
    nib.save(nib.Nifti1Image(labels * np.int16(100), np.eye(4)), "a.nii")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), "a_labels.nii")
    Path("volumes.tsv").write_text("volume\timage\treference\na\ta.nii\ta_labels.nii\n")
    return tmp_path


def configuration(predictor: str, family: str | None = None, **scheme: Any) -> dict[str, Any]:
    family = family or MODELS[predictor]
    return {
        "volumes": "volumes.tsv",
        "structures": {"femur": {"labels": [1]}},
        "schemes": {"it": {"predictor": predictor, "point": "centroid", **scheme}},
        "models": {"own": {"family": family, "architecture": "any text", "checkpoint": "./own.pt"}},
        "experiments": {"all": {"models": ["own"], "schemes": ["it"]}},
    }


def segmented(study: Study, schemes: dict[str, Any]) -> np.ndarray:
    """Convert, prompt and segment the volume; return the mask."""
    row = {"volume": "a", "image": "a.nii", "reference": "a_labels.nii"}
    labels = {"femur": [1]}
    convert_shard([row], study.settings.frames.model_dump(mode="json"), labels, "converted")
    extract_shard("converted", labels, [], "prompts.parquet")
    segment_shard(
        volumes="converted",
        prompts="prompts.parquet",
        checkpoint=study.checkpoints["own"].file,
        model=study.checkpoints["own"].description(),
        schemes=schemes,
        labels=labels,
        scored=["femur"],
        inference={"device": "cpu"},
        masks="masks",
    )
    return np.asarray(nib.load("masks/it/a_label-femur_mask.nii.gz").dataobj)


def faults(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_study(config, {})
    return caught.value.faults


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert set(EXAMPLES) == {"grey_image", "grey_video", "grey_volume"}
    assert len(EXAMPLES[name].splitlines()) <= 60


@pytest.mark.parametrize("predictor", MODELS)
def test_the_examples_pass_the_check(here: Path, predictor: str) -> None:
    results = list(conformance(MODELS[predictor], "any text", "own.pt"))
    assert len(results) == {"image": 5, "video": 10, "volume": 4}[predictor]
    assert [result for result in results if result.fault] == []


@pytest.mark.parametrize("corrections", [None, {"clicks": 2}])
@pytest.mark.parametrize("predictor", MODELS)
def test_the_examples_run_a_study(here: Path, predictor: str, corrections: Any) -> None:
    config = configuration(predictor, corrections=corrections)
    mask = segmented(read_study(config, {}), config["schemes"])
    assert (mask == np.asarray(nib.load("a_labels.nii").dataobj)).all()
    (run,) = pd.read_parquet("masks/run.parquet").to_dict("records")
    assert (run["status"], run["parameters"]) == ("ok", 1)


def test_a_volume_scheme_is_corrected_round_by_round(here: Path) -> None:
    """From a point outside the structure, the click of the first round finds it."""
    Path("a.nii").unlink()
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 5:15, 6:16] = 1
    image = labels * np.int16(100)
    image[2, 8:12, 9:13] = 40  # where the point is, it is dark
    nib.save(nib.Nifti1Image(image, np.eye(4)), "a.nii")
    config = configuration("volume", slice={"index": 2}, corrections={"clicks": 2})
    mask = segmented(read_study(config, {}), config["schemes"])
    clicks = pd.read_parquet("masks/corrections.parquet")
    assert list(clicks["round"]) == [1, 2]
    assert clicks["label"].iloc[0] == 1
    reference = np.asarray(nib.load("a_labels.nii").dataobj)
    assert (mask & reference).sum() > 0.8 * reference.sum()


def test_a_round_is_given_the_mask_of_the_one_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "remembering", raising=False)
    Path("remembering.py").write_text(
        "from grey_volume import GreyVolumeModel\nseen = []\n"
        "class Remembering(GreyVolumeModel):\n"
        "    def segment(self, image, spacing, prompts, before):\n"
        "        made = abs(image - image[tuple(prompts.points[-1].astype(int))].astype(int)) < 5 + len(seen)\n"
        "        seen.append((before, made))\n"
        "        return made\n"
    )
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    nib.save(nib.Nifti1Image(image, np.eye(4)), "a.nii")
    config = configuration("volume", "remembering:Remembering", slice={"index": 2}, corrections={"clicks": 2})
    segmented(read_study(config, {}), config["schemes"])
    seen = sys.modules["remembering"].seen
    assert len(seen) == 3
    assert seen[0][0] is None
    for (_, made), (before, _) in pairwise(seen):
        np.testing.assert_array_equal(before, made)


def test_prompts_of_a_volume_are_slice_y_x() -> None:
    points, labels = np.array([[7.5, 3.0], [1.0, 2.0]], np.float32), np.array([1, 0], np.int32)
    mask = np.eye(4, dtype=bool)
    given = [
        ObjectPrompt("femur", 5, points, labels, np.array([1, 2, 8, 9], np.float32)),
        ObjectPrompt("femur", 6, points[:0], labels[:0], None, mask),
    ]
    prompts = VolumePrompts.of(given)
    assert prompts.points.tolist() == [[5, 3, 7.5], [5, 2, 1]]
    assert prompts.labels.tolist() == [1, 0]
    assert prompts.boxes.tolist() == [[[5, 2, 1], [5, 9, 8]]]
    assert list(prompts.masks) == [6]
    assert (prompts.masks[6] == mask).all()
    none = VolumePrompts.of([])
    assert [part.shape for part in (none.points, none.labels, none.boxes)] == [(0, 3), (0,), (0, 2, 3)]


def test_a_scheme_that_the_adapter_cannot_run(here: Path) -> None:
    """Planning does not import the adapter; the job says it before it loads anything."""
    config = configuration("video", family=MODELS["image"])
    study = read_study(config, {})
    with pytest.raises(ArchitectureError, match=r"scheme 'it' has predictor video, and the adapter .* is for image"):
        segmented(study, config["schemes"])
    fault = "'it' is a volume scheme, and 'own' (family sam2) takes slices, not whole volumes"
    assert any(fault in each for each in faults(configuration("volume", family="sam2")))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("nowhere.to_be:Found", "there is no module nowhere.to_be, neither installed nor in the working directory"),
        ("grey_image", "there is no family 'grey_image'"),
        ("grey_image:", "there is no family 'grey_image:'"),
    ],
)
def test_an_address_that_leads_nowhere(here: Path, family: str, message: str) -> None:
    assert any(message in fault for fault in faults(configuration("image", family=family)))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "cannot be imported: module 'grey_image' has no attribute 'GreyModel'"),
        ("import not_there", "cannot be imported: No module named 'not_there'"),
        ("GreyModel = 3", "is no PromptableModel and no VolumeModel"),
    ],
)
def test_a_module_without_an_adapter(here: Path, code: str, message: str) -> None:
    Path("grey_image.py").write_text(code)
    config = configuration("image")
    with pytest.raises(ArchitectureError, match=message):
        segmented(read_study(config, {}), config["schemes"])


def test_changed_code_is_another_model(here: Path) -> None:
    """The file of the adapter counts for results; finding it imports nothing."""
    before = segment_settings(read_study(configuration("volume"), {}), "all", "own")
    assert before["model"]["adapter"].startswith("sha256:")
    Path("grey_volume.py").write_text(EXAMPLES["grey_volume"].replace("tolerance) < tolerance", "tolerance)") + "# 2\n")
    after = segment_settings(read_study(configuration("volume"), {}), "all", "own")
    assert before != after
    assert {**before, "model": 0} == {**after, "model": 0}
    assert "grey_volume" not in sys.modules


def test_the_file_of_an_adapter_in_a_package(here: Path) -> None:
    folder = here / "outer" / "inner"
    folder.mkdir(parents=True)
    (here / "outer" / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "adapter.py").write_text("")
    assert adapter_file(family_of("outer.inner.adapter:It")) == folder / "adapter.py"
    assert adapter_file(family_of("outer.other.adapter:It")) is None


# What the check finds

WRONG = {
    "masks of another size": ("Decoded(found > 0", "Decoded(found[:, 1:] > 0", "masks is torch.bool (3, 43, 60)"),
    "masks of another type": ("Decoded(found > 0", "Decoded((found > 0).float()", "masks is torch.float32"),
    "logits without an axis": ("found[:, None], torch", "found, torch", "logits have 3 axes"),
    "no confidence": ("torch.full((2, len(prompts)), torch.nan, device=self.device)", "None", "confidence is NoneType"),
    "what depends on the batch": (
        "Decoded(found > 0",
        "Decoded(found > found.max() - 4 * len(prompts)",
        "a mask alone and in a batch",
    ),
    "what is random": (
        "Decoded(found > 0",
        "Decoded(found > 10 + 15 * torch.rand_like(found)",
        "other masks the second time",
    ),
    "what fails": ("Decoded(found > 0", "Decoded(found > nothing", "NameError: name 'nothing' is not defined"),
    "a batch in another order": ("Decoded(found > 0", "Decoded(found.flip(0) > 0", "in a batch"),
    "frames without rows": ("[:, None].float()]", "[:1, None].float()]", "a row for each frame"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_check_finds_what_is_wrong_with_slices(here: Path, kind: str) -> None:
    old, new, message = WRONG[kind]
    assert EXAMPLES["grey_image"].count(old) == 1
    Path("grey_image.py").write_text(EXAMPLES["grey_image"].replace(old, new))
    found = [result.fault for result in conformance(MODELS["image"], "any text") if result.fault]
    assert any(message in fault for fault in found), found


PROPAGATE = "            yield from self.propagate(each)\n\n    def remember"
WITHOUT_MASKS = """            before = each.masks.clone()
            yield from self.propagate(each)
            each.masks.copy_(before)

    def remember"""
WRONG_VIDEO = {
    "a slice is left out": ("each.start - 1, -1, -1)", "each.start - 1, 0, -1)", "slices [0] have to be yielded"),
    "bits beyond the frame": (
        "each.masks[index] = pack_bits((far < self.tolerance)[None])[0]",
        "each.masks[index] = 254; each.masks[index, 0] = 1",
        "bits beyond the frame's width are set",
    ),
    "a slice that was not asked for": ("yield [(each.features, index)]", "yield []", "without having been announced"),
    "objects are mixed": ("self.memory.get(each, torch.inf)", "[*self.memory.values(), torch.inf][0]", "Dice"),
    "a slice without a mask": ("each.masks[index] =", "each.masks[max(index, 1)] =", "written on slices [0]"),
    "no correction": ("for each in clicks:", "for each in []:", "have to be yielded"),
    "no mask of a correction": (PROPAGATE, WITHOUT_MASKS, "no mask was written"),
    "an empty mask": ("self.memory.get(each, torch.inf)", "self.memory[each]", "KeyError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_VIDEO)
def test_the_check_finds_what_is_wrong_with_memory(here: Path, kind: str) -> None:
    old, new, message = WRONG_VIDEO[kind]
    assert EXAMPLES["grey_video"].count(old) == 1
    Path("grey_video.py").write_text(EXAMPLES["grey_video"].replace(old, new))
    found = [result.fault for result in conformance(MODELS["video"], "any text") if result.fault]
    assert any(message in fault for fault in found), found


WRONG_VOLUME = {
    "another type": ("return np.isin(regions", "return 1 * np.isin(regions", "segment returns int64"),
    "another shape": ("np.unique(regions[seeds]))", "np.unique(regions[seeds]))[0]", "expected bool (5, 44, 60)"),
    "no mask": ("            return seeds\n", "            return None\n", "segment returns NoneType"),
    "a changed image": ("        alike = abs(", "        image[0] = 0\n        alike = abs(", "changed an array"),
    "a state": ("float(self.module.tolerance)", "vars(self).setdefault('t', [200, 1, 2, 3] * 9).pop()", "another mask"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_VOLUME)
def test_the_check_finds_what_is_wrong_with_volumes(here: Path, kind: str) -> None:
    old, new, message = WRONG_VOLUME[kind]
    assert EXAMPLES["grey_volume"].count(old) == 1
    Path("grey_volume.py").write_text(EXAMPLES["grey_volume"].replace(old, new))
    found = [result.fault for result in conformance(MODELS["volume"], "any text") if result.fault]
    assert any(message in fault for fault in found), found


def test_a_mask_of_another_shape_fails_the_volume_with_a_word(here: Path) -> None:
    Path("grey_volume.py").write_text(EXAMPLES["grey_volume"].replace("regions[seeds]))", "regions[seeds]))[1:]"))
    config = configuration("volume")
    study = read_study(config, {})
    with pytest.raises(FileNotFoundError):
        segmented(study, config["schemes"])
    (run,) = pd.read_parquet("masks/run.parquet").to_dict("records")
    assert run["status"] == "failed"
    assert "GreyVolumeModel.segment returned bool (3, 24, 20); expected bool (4, 24, 20)" in run["reason"]


# Packages and the command


class Point:
    """An entry point."""

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.value, self.found = name, f"a.b:{name}", found

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


BROUGHT = Family("grey", "Grey", "grey_video:GreyVideoModel", ("image", "video"), free_image_size=False, packages=())


def brings(monkeypatch: pytest.MonkeyPatch, name: str, found: Any) -> None:
    monkeypatch.setattr(families, "entry_points", lambda group: [Point(name, found)] if group == families.GROUP else [])
    families_of_packages.cache_clear()


@pytest.fixture(autouse=True)
def no_memory_of_packages() -> Any:
    yield
    families_of_packages.cache_clear()


def test_a_family_that_a_package_brings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brings(monkeypatch, "grey", BROUGHT)
    config = configuration("video", family="grey")
    mask = segmented(read_study(config, {}), config["schemes"])
    assert mask.any()
    assert "adapter" in segment_settings(read_study(config, {}), "all", "own")["model"]
    shown = CliRunner().invoke(command, ["families"]).output
    assert "grey: Grey, memory" in shown
    assert "grey_video.py)" in shown


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("grey", RuntimeError("broken"), "the family grey (a.b:grey) cannot be imported: broken"),
        ("grey", 3, "a.b:grey is no `Family` of the name grey"),
        ("gray", BROUGHT, "a.b:gray is no `Family` of the name gray"),
    ],
)
def test_a_package_that_brings_something_else(
    monkeypatch: pytest.MonkeyPatch, name: str, found: Any, message: str
) -> None:
    brings(monkeypatch, name, found)
    with pytest.raises(UnknownFamily, match=re.escape(message)):
        family_of(name)


def test_the_command_lists_families() -> None:
    shown = CliRunner().invoke(command, ["families"])
    assert shown.exit_code == 0
    for name in families.FAMILIES:
        assert f"\n{name}: " in f"\n{shown.output}"
    assert "not found" not in shown.output


def test_the_command_checks_an_adapter(here: Path) -> None:
    arguments = ["families", "check", MODELS["volume"], "--checkpoint", "own.pt"]
    passed = CliRunner().invoke(command, arguments)
    assert (passed.exit_code, passed.output.splitlines()[-1]) == (0, f"{MODELS['volume']}: all checks passed")
    Path("grey_volume.py").write_text(EXAMPLES["grey_volume"].replace("return np.isin", "return 1 * np.isin"))
    sys.modules.pop("grey_volume")
    failed = CliRunner().invoke(command, arguments)
    assert failed.exit_code == 1
    assert "FAULT segment: every form of prompt" in failed.output
