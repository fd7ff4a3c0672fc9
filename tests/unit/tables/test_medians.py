"""Medians over volumes against values worked out by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.unit.tables.score_tables import COMBINED_ALONE, FEMUR, NAN, knees, ran, scored

from volprompt.columns import (
    CONFIGURATION_COLUMNS,
    COST_COLUMNS,
    STANDING_COLUMNS,
    STRUCTURE_COLUMNS,
    SURFACE_COLUMNS,
    column_of,
    median_columns,
    reserved_names,
)
from volprompt.tables.design import TableDesign
from volprompt.tables.medians import medians, medians_long, summarize


def alone(values: list[float]) -> list[str]:
    return [f"knee{index}" for index in range(len(values))]


def test_summary() -> None:
    # Of 0, 1, ..., 8: the quartiles are 2 and 6; n = 9 has P(X <= 1) = 10/512 = 0.0195, P(X <= 2) = 0.09, so k = 2.
    values = [8, 3, NAN, 0, 5, 1, 7, NAN, 2, 6, 4]
    rest = {"n": 9, "groups": 9, "median": 4, "low": 1, "high": 7, "interval": "order statistics", "iqr": 4}
    assert summarize(values, alone(values)) == {**rest, "worst": 0}
    assert summarize(values, alone(values), more_is_better=False) == {**rest, "worst": 8}


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_summary_of_nothing(values: list[float]) -> None:
    summary = summarize(values, alone(values))
    assert (summary.pop("n"), summary.pop("groups"), summary.pop("interval")) == (0, 0, "none")
    assert all(math.isnan(value) for value in summary.values())


def test_infinite_distances_count_as_the_largest() -> None:
    summary = summarize([1.0, 2.0, math.inf, math.inf, 3.0], alone([0] * 5), more_is_better=False)
    assert (summary["median"], summary["worst"]) == (3.0, math.inf)
    assert math.isnan(summary["iqr"])  # from 2 to infinity


def test_subjects_stay_with_their_volumes_beside_undefined_ones() -> None:
    """Volumes without a value are left out together with their subjects: five subjects are left, and no interval."""
    values = [NAN, 0.2, 0.3, NAN, 0.4, 0.5, 0.6, 0.7]
    subjects = ["a", "b", "c", "d", "e", "f", "g", "g"]
    summary = summarize(values, subjects)
    assert (summary["n"], summary["groups"], summary["interval"]) == (6, 5, "none")
    # With one more subject: of the values those of g are one subject's, and e is alone.
    summary = summarize([*values, 0.1, 0.8], [*subjects, "h", "i"])
    assert (summary["n"], summary["groups"], summary["interval"]) == (8, 7, "bootstrap by group")


def test_labels_of_the_bootstrap_follow_the_values() -> None:
    """One subject has ten low values, seven others a high one each; undefined values stand before them all."""
    values = [NAN] * 4 + [0.1] * 10 + [0.9] * 7
    subjects = [f"x{index}" for index in range(4)] + ["low"] * 10 + [f"high{index}" for index in range(7)]
    summary = summarize(values, subjects)
    # Ten of 17 values are 0.1, yet a resample without the low subject has nothing but 0.9: that happens in (7/8)**8 =
    # 34 %.
    assert (summary["median"], summary["low"], summary["high"]) == (0.1, 0.1, 0.9)


NAMES = ("femur", "hip_left", "combined")


def test_columns_of_the_medians() -> None:
    scores = pd.concat([scored("m", "point", [0.5], name) for name in (*NAMES, "union", "mean")])
    table = medians(scores, ran("m", "point", [1.0]), TableDesign(scored=["femur", "hip_left"]))
    endings = ("", "_low", "_high", "_iqr", "_worst", "_undefined", "_failed", "_failed_as_0", "_standing")
    named = [f"{name}{ending}" for name in NAMES for ending in (*endings, "_same_volumes")]
    surface = ["combined_nsd", "combined_hd95_mm", "combined_assd_mm"]
    first = ["model", "scheme", "parameters", "n", "groups", "interval"]
    assert list(table.columns) == [*first, *named, *surface, "seconds_per_volume"]
    assert median_columns(["femur", "hip_left"]) == list(table.columns)
    assert reserved_names(NAMES[:2]) == set(table.columns) - set(NAMES[:2])  # no structure can have one of these names


def test_the_columns_of_the_medians_are_documented() -> None:
    """docs/results.md has the columns of `columns.py` in order, with their meanings."""
    columns = [(column.name, column.meaning) for column in CONFIGURATION_COLUMNS]
    of_structure = (*STRUCTURE_COLUMNS, *STANDING_COLUMNS)
    columns += [(column_of("{structure}", column.name), column.meaning) for column in of_structure]
    columns += [(column_of("combined", column.name), column.meaning) for column in SURFACE_COLUMNS]
    columns += [(column.name, column.meaning) for column in COST_COLUMNS]
    text = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text[text.index("### Medians\n") : text.index("## Scores\n")]
    assert re.findall(r"^\| `(.+?)` \| (.+?) \|$", section, re.MULTILINE) == columns


def all_rows(model: str, scheme: str, dice: list[float], **more: Any) -> pd.DataFrame:
    """The same scores for femur and over all structures."""
    names = ("femur", "combined", "union", "mean")
    return pd.concat([scored(model, scheme, dice, name, **more) for name in names])


def test_medians() -> None:
    femur = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, NAN]
    nsd = [0.5, 0.7, NAN, 0.8, 0.9, 0.9, NAN]
    scores = pd.concat(
        [
            scored("m", "point", femur, "femur"),
            *(scored("m", "point", [0.9] * 7, name, nsd=nsd, hd95_mm=2.0) for name in ("combined", "union", "mean")),
            all_rows("m", "box", [NAN], status="failed"),
        ]
    )
    runs = pd.concat([ran("m", "point", [1.0, 9.0, 2.0]), ran("m", "box", [NAN], status="failed")])
    point, box = medians(scores, runs, FEMUR).to_dict("records")
    assert (point["model"], point["scheme"], point["n"], point["parameters"]) == ("m", "point", 7, 1000)
    assert (point["groups"], point["interval"]) == (7, "order statistics")
    assert point["femur"] == pytest.approx(0.35)
    assert (point["femur_low"], point["femur_high"]) == (0.1, 0.6)
    assert point["femur_iqr"] == pytest.approx(0.25)  # from 0.225 to 0.475
    assert (point["femur_worst"], point["femur_undefined"], point["femur_failed"]) == (0.1, 1, 0)
    assert (point["combined"], point["combined_undefined"]) == (0.9, 0)
    assert (point["combined_low"], point["combined_high"]) == (0.9, 0.9)
    assert (point["combined_nsd"], point["combined_hd95_mm"]) == (0.8, 2.0)
    assert (point["combined_standing"], point["combined_same_volumes"]) == ("best", True)
    assert math.isnan(point["combined_assd_mm"])
    assert point["seconds_per_volume"] == 2.0
    assert (box["scheme"], box["n"], box["interval"]) == ("box", 0, "none")
    assert math.isnan(box["femur"])
    assert (box["femur_failed"], box["femur_failed_as_0"], box["combined_standing"]) == (1, 0.0, "")
    assert pd.isna(box["combined_same_volumes"])
    assert pd.isna(box["parameters"])
    assert math.isnan(box["seconds_per_volume"])


def test_the_interval_of_the_medians_is_by_subject() -> None:
    """Twenty subjects with two equal knees: what forty independent volumes would claim is narrower."""
    values = [0.5 + index / 100 for index in range(20) for _ in range(2)]
    scores, runs = all_rows("m", "point", values), ran("m", "point", [1.0])
    groups = knees([f"s{index // 2}" for index in range(40)])
    (row,) = medians(scores, runs, replace(FEMUR, groups=groups)).to_dict("records")
    (naive,) = medians(scores, runs, FEMUR).to_dict("records")
    assert (row["n"], row["groups"], row["interval"]) == (40, 20, "bootstrap by group")
    assert (naive["n"], naive["groups"], naive["interval"]) == (40, 40, "order statistics")
    assert row["combined_low"] < naive["combined_low"] < row["combined"] < naive["combined_high"] < row["combined_high"]


def test_a_failed_volume_is_not_part_of_the_median() -> None:
    scores = all_rows("m", "point", [0.2, 0.4, 0.9]).assign(status=["ok", "ok", "failed"] * 4)
    (row,) = medians(scores, ran("m", "point", [1.0]), COMBINED_ALONE).to_dict("records")
    assert (row["n"], row["combined"]) == (2, pytest.approx(0.3))


def test_failures_as_zero() -> None:
    """Of 0.6, 0.8, a volume that failed, one in which the femur could not be prompted and one without it."""
    status = ["ok", "ok", "failed", "no_prompt", "absent"]
    scores = all_rows("m", "point", [0.6, 0.8, NAN, NAN, NAN]).assign(status=status * 4)
    design = FEMUR
    (row,) = medians(scores, ran("m", "point", [1.0]), design).to_dict("records")
    assert row["femur"] == pytest.approx(0.7)
    assert (row["femur_failed"], row["femur_failed_as_0"]) == (2, pytest.approx(0.3))  # of 0, 0, 0.6, 0.8
    long = medians_long(scores, ran("m", "point", [1.0]), design)
    rows = long[(long["structure"] == "femur") & (long["score"] == "dice")].set_index("analysis")
    assert rows["n"].to_dict() == {"scored": 2, "failed_as_0": 4}
    assert rows["median"].to_dict() == {"scored": pytest.approx(0.7), "failed_as_0": pytest.approx(0.3)}


def test_long_medians() -> None:
    scores = all_rows("m", "point", [0.5, 0.7], nsd=[0.1, 0.3], hd95_mm=[1.0, 4.0], assd_mm=NAN)
    long = medians_long(scores, ran("m", "point", [1.0], parameters=7), FEMUR)
    assert len(long) == 4 * 5  # four structures, four scores, and Dice with failures as 0
    rows = long[long["analysis"] == "scored"].set_index(["structure", "score"])
    assert rows.loc["union", "median"].to_dict() == pytest.approx(
        {"dice": 0.6, "nsd": 0.2, "hd95_mm": 2.5, "assd_mm": NAN}, nan_ok=True
    )
    assert rows.loc["femur", "worst"].to_dict() == pytest.approx(
        {"dice": 0.5, "nsd": 0.1, "hd95_mm": 4.0, "assd_mm": NAN}, nan_ok=True
    )
    assert rows.loc["femur", "n"].to_dict() == {"dice": 2, "nsd": 2, "hd95_mm": 2, "assd_mm": 0}
    assert (long["parameters"] == 7).all()


def test_repetitions_stand_together() -> None:
    parts = [all_rows("m", scheme, [dice] * 6) for scheme, dice in (("box_1", 0.5), ("box_2", 0.9), ("point", 0.6))]
    runs = pd.concat([ran("m", scheme, [1.0]) for scheme in ("box_1", "box_2", "point")])
    design = replace(FEMUR, repetitions={"box_1": "box", "box_2": "box"})
    table = medians(pd.concat(parts), runs, design).set_index("scheme")
    assert table["combined_standing"].to_dict() == {"box_1": "best", "box_2": "best", "point": "below"}  # 0.7 and 0.6
