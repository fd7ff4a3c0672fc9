"""A study of a model without memory that carries prompts from slice to slice by boxes."""

from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import MadeOnce
from tests.workflow.small_study import VOLUMES, Study, new_study

SCHEMES = {
    "box": {"predictor": "image", "box": True},
    "carried": {"predictor": "image", "slice": "largest", "box": True, "propagate": "box"},
    "helped": {"predictor": "image", "slice": "largest", "box": True, "propagate": "box", "presence": True},
}


@pytest.fixture(scope="module")
def tables(made_once: MadeOnce) -> Path:
    """The tables of a study of SAM 1 alone."""

    def make(folder: Path) -> None:
        study = new_study(folder)
        experiments = {"sam1": {"models": ["small_sam"], "schemes": list(SCHEMES)}}
        study.configure(schemes=SCHEMES, experiments=experiments)
        run = study.run("--", "tables")
        assert run.code == 0, run.text

    return Study(made_once("propagated", make)).folder / "results" / "tables"


def test_propagated_boxes_are_scored_like_a_video_scheme(tables: Path) -> None:
    scores = pd.read_parquet(tables / "scores.parquet")
    assert set(scores["status"]) == {"ok"}
    by_scheme = {str(name): rows.set_index(["volume", "structure"]) for name, rows in scores.groupby("scheme")}
    of_bones = by_scheme["carried"].loc[(slice(None), ["femur", "tibia", "combined"]), :]
    assert len(of_bones) == 3 * len(VOLUMES)
    assert (of_bones["over_propagation"] > 0).any()
    assert of_bones["dice_prompted"].notna().all()
    assert (by_scheme["box"]["over_propagation"].dropna() == 0).all()
    assert (by_scheme["helped"]["over_propagation"].dropna() == 0).all()
    slices = pd.concat(pd.read_parquet(path) for path in tables.parent.glob("scores/*/*/*_slices.parquet"))
    counts = slices[slices["scheme"] == "carried"].groupby(["volume", "structure"])["distance"]
    assert counts.apply(lambda distance: distance.eq(0).sum()).eq(1).all()
    assert slices.loc[slices["scheme"] == "box", "distance"].isna().all()


def test_tables_of_propagated_boxes(tables: Path) -> None:
    propagation = pd.read_csv(tables / "propagation.csv").set_index(["scheme", "structure"])
    assert propagation["knows_extent"].groupby("scheme").all().to_dict() == {
        "box": True,
        "carried": False,
        "helped": False,
    }
    assert propagation.loc[("carried", "combined"), "over_propagation_worst"] > 0
    decay = pd.read_csv(tables / "decay.csv")
    assert set(decay["scheme"]) == {"carried", "helped"}
    assert set(decay.loc[decay["scheme"] == "carried", "direction"]) == {"prompted", "forward", "reverse"}
    cost = pd.read_csv(tables / "cost.csv").set_index("scheme")
    assert cost.loc["carried", "prompts_per_volume"] == 2  # a box per bone, as a person gives them
    assert cost.loc["box", "prompts_per_volume"] > 2
    assert cost.loc["carried", "seconds_prompt"] > 0
