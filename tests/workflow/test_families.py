"""A study with every built-in family and two adapters of one's own, under all kinds of schemes, with one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.conftest import MadeOnce
from tests.unit.models.in_transformers import saved
from tests.unit.test_own_models import EXAMPLES
from tests.workflow.small_study import SAM, SAM2, Study
from torch import save, tensor

IMAGE = {
    "point": {"predictor": "image", "point": "interior"},
    "box": {"predictor": "image", "box": True},
}
VIDEO = {
    "point_video": {"predictor": "video", "slice": "largest", "point": "interior"},
    "corrected": {"predictor": "video", "slice": "largest", "box": True, "corrections": {"clicks": 2}},
}
VOLUME = {
    "point_volume": {"predictor": "volume", "slice": "largest", "point": "interior"},
    "corrected_volume": {"predictor": "volume", "slice": "largest", "box": True, "corrections": {"clicks": 2}},
}
FAMILIES = {
    "sam": {"family": "sam", "architecture": str(SAM), "checkpoint": "./weights/sam.pth"},
    "sam2": {"family": "sam2", "architecture": str(SAM2), "checkpoint": "./weights/sam2.pt"},
    "sam3": {"family": "sam3", "architecture": "sam3/config.json", "checkpoint": "./sam3/model.safetensors"},
    "edgetam": {
        "family": "edgetam",
        "architecture": "edgetam/config.json",
        "checkpoint": "./edgetam/model.safetensors",
    },
    "grey_video": {"family": "grey_video:GreyVideoModel", "architecture": "any", "checkpoint": "./weights/grey.pt"},
    "grey_volume": {"family": "grey_volume:GreyVolumeModel", "architecture": "any", "checkpoint": "./weights/grey.pt"},
}
MEMORY = ["sam2", "sam3", "edgetam", "grey_video"]
CONFIGURATION: dict[str, Any] = {
    "results": "results",
    "volumes": "volumes.tsv",
    "shards": 1,
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}},
    "schemes": {**IMAGE, **VIDEO, **VOLUME},
    "models": FAMILIES,
    "experiments": {
        "images": {"models": ["sam"], "schemes": list(IMAGE)},
        "memory": {"models": MEMORY, "schemes": [*IMAGE, *VIDEO]},
        "volumes": {"models": ["grey_volume"], "schemes": list(VOLUME)},
    },
}


def make_study(folder: Path) -> None:
    """A folder with two phantoms, weights of every family, and the adapters of docs/families.md."""
    study = Study(folder)
    (folder / "config.yaml").write_text("")
    (folder / "volumes.tsv").write_text("volume\timage\treference\n")
    (folder / "volumes").mkdir()
    for name, seed in {"knee_a": 1, "knee_b": 2}.items():
        study.add_volume(name, seed)
    study.add_checkpoint("weights/sam.pth", 1)
    study.add_checkpoint("weights/sam2.pt", 2)
    for family in ("sam3", "edgetam"):
        saved(family, folder / family)
    save({"tolerance": tensor([12.0])}, folder / "weights" / "grey.pt")
    for name, code in EXAMPLES.items():
        (folder / f"{name}.py").write_text(code)
    (folder / "config.yaml").write_text("{}")
    study.configure(**CONFIGURATION)
    run = study.run("tables")
    assert run.code == 0, run.text


@pytest.fixture(scope="module")
def finished(made_once: MadeOnce) -> Study:
    return Study(made_once("every_family", partial(make_study)))


def test_every_family_under_every_kind_of_scheme(finished: Study) -> None:
    medians = pd.read_csv(finished.folder / "results" / "tables" / "medians.csv")
    expected = {("sam", scheme) for scheme in IMAGE}
    expected |= {(model, scheme) for model in MEMORY for scheme in [*IMAGE, *VIDEO]}
    expected |= {("grey_volume", scheme) for scheme in VOLUME}
    assert set(zip(medians["model"], medians["scheme"], strict=True)) == expected
    runs = pd.concat(
        pd.read_parquet(path) for path in sorted((finished.folder / "results" / "masks").rglob("run.parquet"))
    )
    assert set(runs["status"]) == {"ok"}
    assert set(runs["compiled"]) == {False}
    versions = runs.drop_duplicates("model").set_index("model")["versions"]
    assert '"transformers"' in versions["sam3"]
    assert '"timm"' in versions["edgetam"]
    assert '"transformers"' not in versions["sam2"]
    rounds = pd.read_csv(finished.folder / "results" / "tables" / "corrections.csv")
    assert set(rounds["model"]) == {*MEMORY, "grey_volume"}


def test_nothing_is_left_to_do(finished: Study) -> None:
    assert set(finished.plan()) <= {"report", "all"}


def test_a_changed_adapter_makes_its_masks_again(finished: Study, tmp_path: Path) -> None:
    study = finished.copy_to(tmp_path)
    adapter = study.folder / "grey_volume.py"
    adapter.write_text(adapter.read_text() + "\n# changed\n")
    assert study.plan() == {"segment": 1, "score": 1, "aggregate": 1, "report": 1, "all": 1}


def test_the_study_of_2026_is_a_configuration() -> None:
    import yaml

    from volprompt.families import FAMILIES as BUILT_IN
    from volprompt.settings.reading import read_settings

    config = Path(__file__).parents[2] / "config" / "2026.yaml"
    settings = read_settings(yaml.safe_load(config.read_text()))
    assert {model.family for model in settings.models.values()} == set(BUILT_IN) - {"sam"}
