"""Medians by covariate, and the columns that the study's score table has for statistics software."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from tests.unit.tables.score_tables import FEMUR, NAN, knees, ran, scored

from volprompt.columns import JOINED_COLUMNS, SCORE_COLUMNS
from volprompt.tables.score_rows import with_study_columns
from volprompt.tables.subgroups import MOST_LEVELS, subgroups

GRADES = {"knee0": "2", "knee1": "10", "knee2": "2", "knee3": "none"}


def both(dice: list[float]) -> pd.DataFrame:
    return pd.concat([scored("m", "point", dice, name, nsd=0.5) for name in ("femur", "combined")])


def test_medians_by_subgroup() -> None:
    design = replace(FEMUR, covariates={"grade": GRADES}, groups=knees(["s", "t", "s"]))
    table = subgroups(both([0.2, 0.9, 0.6, 0.7, 0.1]), design)
    femur = table[(table["structure"] == "femur") & (table["score"] == "dice")]
    assert femur["covariate"].unique().tolist() == ["grade"]
    assert femur["level"].tolist() == ["2", "10", "none"]  # numbers by size, then texts; knee4 has no grade
    assert femur["median"].tolist() == pytest.approx([0.4, 0.9, 0.7])
    assert femur[["n", "groups"]].to_numpy().tolist() == [[2, 1], [1, 1], [1, 1]]
    assert (femur["interval"] == "none").all()


def test_an_interval_within_a_subgroup() -> None:
    sites = {f"knee{index}": "A" if index < 7 else "B" for index in range(9)}
    table = subgroups(both([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]), replace(FEMUR, covariates={"site": sites}))
    chosen = table[(table["structure"] == "combined") & (table["score"] == "dice")].set_index("level")
    assert (chosen.loc["A", "low"], chosen.loc["A", "high"], chosen.loc["A", "interval"]) == (
        *(0.1, 0.7),
        "order statistics",
    )
    assert math.isnan(chosen.loc["B", "low"])


def test_a_covariate_with_many_values_has_no_subgroups() -> None:
    count = MOST_LEVELS + 1
    ages = {f"knee{index}": str(50 + index) for index in range(count)}
    assert len(subgroups(both([0.5] * count), replace(FEMUR, covariates={"age": ages}))) == 0
    ages["knee0"] = "51"
    assert len(subgroups(both([0.5] * count), replace(FEMUR, covariates={"age": ages}))) == MOST_LEVELS * 4


def test_the_score_table_holds_what_a_mixed_model_needs() -> None:
    scores = both([0.5, NAN]).reset_index(drop=True)
    runs = pd.concat(
        [
            ran("m", "point", [7.0], prompts=6, prompts_of='{"femur": 3, "tibia": 2}', human_prompts=4).assign(
                clicks_of='{"femur": 1}'
            ),
            ran("m", "point", [NAN, NAN], status="failed", prompts=NAN, prompts_of=None, human_prompts=NAN).iloc[1:],
        ]
    )
    converted = pd.DataFrame({"volume": ["knee0", "knee1"], "spacing": [[0.7, 0.4, 0.3], None]})
    design = replace(FEMUR, groups={"knee0": "s"}, covariates={"grade": {"knee0": "2"}})
    table = with_study_columns(scores, runs, converted, design)
    assert list(table.columns) == [*scores.columns, *JOINED_COLUMNS, "grade"]
    assert set(SCORE_COLUMNS) <= set(table.columns)
    first = table[table["volume"] == "knee0"].set_index("structure")
    assert first.loc["femur", ["group", "grade", "seconds", "parameters"]].tolist() == ["s", "2", 7.0, 1000]
    assert first["prompts"].to_dict() == {"femur": 4, "combined": 6}
    assert first["human_prompts"].to_dict() == {"femur": 4, "combined": 4}
    assert first.loc["femur", ["spacing_slice_mm", "spacing_y_mm", "spacing_x_mm"]].tolist() == [0.7, 0.4, 0.3]
    second = table[table["volume"] == "knee1"].iloc[0]
    assert second["group"] == "knee1"  # no group: the volume is a subject of its own
    assert second[["grade", "seconds", "prompts", "spacing_x_mm"]].isna().all()
