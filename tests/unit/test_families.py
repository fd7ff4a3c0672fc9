"""A family is described once: a made-up one, entered in `FAMILIES` alone, goes from configuration to report.

Its adapter lies in a module of its own, its "checkpoint" holds one number: the grey value that divides structure from
background. What its masks must be is therefore known.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from volprompt.checkpoints.catalogue import CheckpointError, read_catalogue
from volprompt.checkpoints.load import load_into
from volprompt.families import FAMILIES, CheckpointKind, Family, UnknownFamily, family_of
from volprompt.models.base import PromptableModel
from volprompt.models.devices import Device
from volprompt.models.loading import adapter_of, load_model, predictors_of
from volprompt.prompts.candidates import extract_shard
from volprompt.report.deviations import deviations
from volprompt.report.facts import model_rows, software
from volprompt.report.shards import StudyDesign
from volprompt.segmentation.segment import segment_shard
from volprompt.settings.config import json_schema
from volprompt.settings.reading import ConfigurationError
from volprompt.study.study import Study, read_study
from volprompt.volumes.convert import convert_shard

ADAPTER = """
import torch

from volprompt.models.base import Decoded, PromptableModel, pack_bits


class Threshold(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))


class ThresholdModel(PromptableModel):
    @staticmethod
    def build(architecture, image_size=None):
        module = Threshold()
        module.image_size = image_size or 64
        return module

    @property
    def image_size(self):
        return self.module.image_size

    def encode(self, frames):
        return [torch.from_numpy(frames)[:, None].float()]

    def decode(self, levels, prompts, size, multimask, logits=None):
        above = levels[0] - self.module.level
        return Decoded(above[:, 0] > 0, above, torch.full((2, len(prompts)), torch.nan))

    def tracker(self, hole_area=0):
        return ThresholdTracker(self.module)


class ThresholdTracker:
    def __init__(self, module):
        self.module = module

    def track(self, objects, reset_between_directions):
        for tracked in objects:
            start = tracked.prompts[0].slice
            for index in [start, *range(start + 1, tracked.features.depth), *range(start - 1, -1, -1)]:
                yield [(tracked.features, index)]
                (level,) = tracked.features.use(index)
                tracked.masks[index] = pack_bits(level[0] > self.module.level)[0]
"""
MADE_UP = Family(
    name="threshold",
    title="Threshold",
    adapter="made_up_family:ThresholdModel",
    predictors=("image", "video"),
    free_image_size=True,
    packages=("numpy",),
    checkpoint_kinds=(CheckpointKind("Threshold 1", signs=("level",), other_size="of any name"),),
)
SHAPE = (4, 6, 8)
SCHEMES: dict[str, Any] = {
    "point": {"predictor": "image", "point": "centroid"},
    "video": {"predictor": "video", "point": "centroid", "slice": "nearest"},
}
LABELS = {"femur": [1]}
CPU = Device("cpu", "float32", "CPU")


def enter(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Make the made-up family known: this is all that it takes."""
    monkeypatch.setitem(FAMILIES, MADE_UP.name, dataclasses.replace(MADE_UP, **changes))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the made-up family's adapter, a checkpoint of it, and a volume with a bright block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_up_family", raising=False)
    Path("made_up_family.py").write_text(ADAPTER)
    torch.save({"level": torch.tensor([127.0])}, "own.pt")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:4, 2:5] = 1
    nib.save(nib.Nifti1Image(labels * np.int16(100), np.eye(4)), "a.nii")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), "a_labels.nii")
    Path("volumes.tsv").write_text("volume\timage\treference\na\ta.nii\ta_labels.nii\n")
    return tmp_path


def configuration(**model: Any) -> dict[str, Any]:
    """One model of the made-up family, with changes, under an image and a video scheme."""
    own = {"family": "threshold", "architecture": "any text", "checkpoint": "./own.pt", **model}
    return {
        "volumes": "volumes.tsv",
        "structures": {"femur": {"labels": [1]}},
        "schemes": SCHEMES,
        "models": {"own": own},
        "experiments": {"all": {"models": ["own"], "schemes": list(SCHEMES)}},
    }


def study_of(config: dict[str, Any], catalogue: Path | None = None) -> Study:
    return read_study(config, read_catalogue(catalogue) if catalogue else {})


def faults(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        study_of(config)
    return caught.value.faults


# A family that nothing but its entry in FAMILIES describes


def test_a_made_up_family_goes_from_the_configuration_to_the_report(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch)
    study = study_of(configuration(image_size=96))
    identity = study.checkpoints["own"].description()
    assert (identity["family"], identity["architecture"]) == ("threshold", "any text")
    row = {"volume": "a", "image": "a.nii", "reference": "a_labels.nii"}
    convert_shard([row], study.settings.frames.model_dump(mode="json"), LABELS, "converted")
    extract_shard("converted", LABELS, [], "prompts.parquet")
    segment_shard(
        volumes="converted",
        prompts="prompts.parquet",
        checkpoint=study.checkpoints["own"].file,
        model=identity,
        schemes=SCHEMES,
        labels=LABELS,
        scored=["femur"],
        inference={"device": "cpu"},
        masks="masks",
    )

    runs = pd.read_parquet("masks/run.parquet")
    assert dict(zip(runs["scheme"], runs["status"], strict=True)) == {"point": "ok", "video": "ok"}
    for versions in map(json.loads, runs["versions"]):
        assert list(versions) == ["volprompt", "torch", "torchvision", "numpy"]
        assert versions["numpy"] == np.__version__
    reference = np.asarray(nib.load("a_labels.nii").dataobj)
    for scheme in SCHEMES:
        mask = np.asarray(nib.load(f"masks/{scheme}/a_label-femur_mask.nii.gz").dataobj)
        assert (mask == reference).all(), scheme

    design = StudyDesign(
        labels=LABELS,
        scored=["femur"],
        schemes=study.settings.schemes,
        experiments={"all": (["own"], list(SCHEMES))},
        models={"own": identity},
    )
    (shown,) = model_rows(runs, design)
    assert (shown["family"], shown["architecture"], shown["parameters"]) == ("threshold", "any text", 1)
    departures = {row.setting: row.here for row in deviations(design, 1, ["float32"])}
    assert departures["Model of own"] == "threshold, any text"
    assert f"numpy {np.__version__}" in dict(software(runs))["Masks"]


def test_a_family_without_memory_is_refused_video_schemes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, predictors=("image",))
    (fault,) = faults(configuration())
    assert fault.startswith("experiments.all: 'video' is a video scheme, and 'own' (family threshold) has no memory")


def test_a_family_of_one_image_size_is_refused_another(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, free_image_size=False)
    (fault, *_) = faults(configuration(image_size=96))
    assert fault == (
        "models.own: image_size belongs to family sam2; a model of Threshold has the size of its architecture"
    )


def test_architectures_are_what_the_family_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, architectures=("low", "high"))
    assert study_of(configuration(architecture="high")).checkpoints
    assert faults(configuration()) == [
        "models.own.architecture: 'any text' is neither one of low, high nor an existing YAML file"
    ]
    enter(monkeypatch, config_package="volprompt", config_files="tables/*.py")
    assert study_of(configuration(architecture="tables/ranks.py")).checkpoints
    assert faults(configuration(architecture="tables/rank.py")) == [
        "models.own.architecture: 'tables/rank.py' is neither in the volprompt package nor an existing YAML file; did "
        "you mean 'tables/ranks.py'?"
    ]


def test_the_catalogue_and_the_schema_know_the_family(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here / "checkpoints.yaml"
    path.write_text(f"a.pt: {{sha256: {'a' * 64}, licence: MIT, family: threshold, architecture: any text}}")
    with pytest.raises(CheckpointError, match=r"a\.pt: family: there is no family 'threshold'; known: sam, sam2"):
        read_catalogue(path)
    enter(monkeypatch)
    assert read_catalogue(path)["a.pt"].family == "threshold"
    assert json.loads(json_schema())["$defs"]["Model"]["properties"]["family"]["examples"] == [
        *("sam", "sam2", "sam3", "edgetam", "threshold"),
        "package.module:Class",
    ]
    (fault,) = faults(configuration(checkpoint="b.pt"))
    assert "there is no checkpoint checkpoints/b.pt" in fault
    config = {**configuration(checkpoint="a.pt"), "checkpoints": "weights"}
    assert study_of(config, path).checkpoints["own"].catalogued


def test_its_checkpoint_is_recognised_in_another_familys_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hint() -> str:
        with pytest.raises(CheckpointError) as caught:
            load_into(torch.nn.Linear(1, 1), "own.pt", "sam architecture vit_b")
        return str(caught.value).splitlines()[-1]

    assert (
        hint()
        == "Its tensor names are those of neither SAM, SAM 2, SAM 3 nor EdgeTAM: check that it is the right file."
    )
    enter(monkeypatch, checkpoint_kinds=())
    assert hint().startswith("Its tensor names are those of neither SAM, SAM 2, SAM 3, EdgeTAM nor Threshold:")
    enter(monkeypatch)
    assert hint() == "It is a Threshold 1 checkpoint: it needs family threshold, architecture of any name."


def test_a_later_family_is_recognised_by_what_it_adds_to_an_earlier_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"level": torch.ones(1), "image_encoder.trunk.x": torch.ones(1)}, "own.pt")
    enter(monkeypatch)
    with pytest.raises(CheckpointError, match="it needs family threshold"):
        load_into(torch.nn.Linear(1, 1), "own.pt", "sam2 architecture small.yaml")


# What is unknown


def test_an_unknown_family_is_a_fault_and_never_taken_for_another(here: Path) -> None:
    (fault, *_) = faults(configuration())
    assert fault == (
        "models.own.family: there is no family 'threshold'; known: sam, sam2, sam3, edgetam, or the address of an "
        "adapter of your own, package.module:Class (found 'threshold')"
    )
    (fault, *_) = faults(configuration(family="sma2"))
    assert "package.module:Class; did you mean 'sam2'?" in fault
    identity = {"family": "threshold", "architecture": "configs/sam2/sam2_hiera_t.yaml"}
    with pytest.raises(UnknownFamily, match="there is no family 'threshold'"):
        load_model(identity, "own.pt", CPU)


# The built-in families


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_what_its_adapter_does(name: str) -> None:
    family = family_of(name)
    assert family.name == name
    adapter = adapter_of(name)
    assert issubclass(adapter, PromptableModel)
    assert issubclass(adapter, PromptableModel)
    assert family.predictors == predictors_of(adapter)
    assert all(version(package) for package in family.packages)


def test_sams_architectures_are_those_of_its_package() -> None:
    from segment_anything import sam_model_registry

    assert set(family_of("sam").architectures) == set(sam_model_registry) - {"default"}


@pytest.mark.parametrize("name", FAMILIES)
def test_published_architectures_exist(name: str) -> None:
    family = family_of(name)
    spec = importlib.util.find_spec(family.config_package) if family.config_package else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    for kind in family.checkpoint_kinds:
        for architecture in kind.published.values():
            in_package = any(Path(folder, architecture).is_file() for folder in folders)
            assert in_package or architecture in family.architectures


def test_every_family_is_documented() -> None:
    table = (Path(__file__).parents[2] / "config" / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in table.splitlines() if line.startswith("| `family` |")]
    assert all(f"`{name}`" in row for name in FAMILIES)


def test_planning_imports_no_adapter() -> None:
    code = (
        "import sys, volprompt.families, volprompt.study.study; "
        "sys.exit(bool({'torch', 'sam2', 'segment_anything', 'transformers', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
