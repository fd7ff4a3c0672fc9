"""Comparisons of configurations, and how each stands to the best one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.unit.tables.score_tables import COMBINED_ALONE, FEMUR, NAN, knees, scored

from volprompt.tables.comparisons import comparisons, standings
from volprompt.tables.configurations import configurations, value_table
from volprompt.tables.design import TableDesign


def compared(*parts: pd.DataFrame, score: str = "dice", **design: Any) -> pd.DataFrame:
    """The comparisons of one score over all structures."""
    table = comparisons(pd.concat(parts), replace(COMBINED_ALONE, **design))
    return table[table["score"] == score].reset_index(drop=True)


def test_order_of_the_configurations() -> None:
    scores = pd.concat([scored("b", "point", [0.1]), scored("a", "box", [0.1]), scored("a", "point", [0.1])])
    assert configurations(scores) == [("b", "point"), ("a", "box"), ("a", "point")]


def test_dice_by_volume_and_configuration() -> None:
    parts = [scored("b", "point", [0.1, 0.2]), scored("a", "box", [NAN, 0.4, 0.5]), scored("a", "box", [0.9], "femur")]
    table = value_table(pd.concat(parts), "combined")
    assert list(table.columns) == [("b", "point"), ("a", "box")]
    assert table["b", "point"].to_dict() == pytest.approx({"knee0": 0.1, "knee1": 0.2, "knee2": NAN}, nan_ok=True)
    assert table["a", "box"].to_dict() == pytest.approx({"knee0": NAN, "knee1": 0.4, "knee2": 0.5}, nan_ok=True)


def test_repetitions_are_averaged_per_volume() -> None:
    parts = [scored("m", "box_1", [0.1, 0.4]), scored("m", "box_2", [0.3, NAN]), scored("m", "point", [0.5, 0.6])]
    table = value_table(pd.concat(parts), "combined", repetitions={"box_1": "box", "box_2": "box"})
    assert list(table.columns) == [("m", "box"), ("m", "point")]
    assert table["m", "box"].to_dict() == pytest.approx({"knee0": 0.2, "knee1": NAN}, nan_ok=True)


def test_which_pairs_are_compared() -> None:
    parts = [("a", "point"), ("a", "box"), ("b", "point"), ("b", "video")]
    table = compared(*(scored(model, scheme, [0.5, 0.6]) for model, scheme in parts))
    pairs = {((row.model, row.scheme), (row.other_model, row.other_scheme)): row.kind for row in table.itertuples()}
    # Schemes within a model and models within a scheme; not two models under two schemes.
    assert pairs == {
        (("a", "point"), ("a", "box")): "schemes",
        (("a", "point"), ("b", "point")): "models",
        (("b", "point"), ("b", "video")): "schemes",
    }


def test_every_configuration_is_compared_with_the_baseline() -> None:
    parts = [scored(model, scheme, [0.5, 0.6]) for model, scheme in [("a", "point"), ("a", "box"), ("b", "video")]]
    table = compared(*parts, baseline=("a", "box"))
    of_baseline = table[table["kind"] == "baseline"]
    assert of_baseline[["model", "scheme"]].drop_duplicates().to_numpy().tolist() == [["a", "box"]]
    assert of_baseline[["other_model", "other_scheme"]].to_numpy().tolist() == [["a", "point"], ["b", "video"]]
    assert (table["kind"] == "schemes").sum() == 1  # what is compared without a baseline stays


def test_a_comparison() -> None:
    first = scored("m", "point", [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, NAN, 0.5])
    second = scored("m", "box", [0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.9, NAN])
    (row,) = compared(first, second).to_dict("records")
    assert row["n"] == 6  # the volumes that both have
    assert row["median_difference"] == pytest.approx(0.035)  # the second minus the first
    assert (row["low"], row["high"]) == (pytest.approx(0.01), pytest.approx(0.06))
    assert (row["interval"], row["groups"], row["effect_size"]) == ("order statistics", 6, 1)
    assert row["p"] == row["p_holm"] == pytest.approx(2 / 64)
    assert all(math.isnan(row[name]) for name in ("margin", "p_equivalent", "p_equivalent_holm"))


def test_nsd_and_single_structures_are_compared_as_well() -> None:
    parts = [
        scored("m", scheme, [dice] * 6, name, nsd=[nsd] * 6)
        for scheme, dice, nsd in (("point", 0.5, 0.9), ("box", 0.6, 0.8))
        for name in ("femur", "combined")
    ]
    table = comparisons(pd.concat(parts), FEMUR)
    assert table[["structure", "score"]].to_numpy().tolist() == [
        [name, score] for name in ("femur", "combined") for score in ("dice", "nsd")
    ]
    assert table["median_difference"].tolist() == pytest.approx([0.1, -0.1] * 2)
    assert table["p_holm"].tolist() == pytest.approx([2 / 64] * 4)  # each is the only pair of its family


def test_comparisons_pair_by_volume_not_by_place() -> None:
    first = scored("m", "point", [0.1, 0.5, 0.9])
    second = scored("m", "box", [0.2, 0.6, 1.0]).iloc[::-1]
    (row,) = compared(first, second).to_dict("records")
    assert (row["low"], row["high"]) == (pytest.approx(NAN, nan_ok=True), pytest.approx(NAN, nan_ok=True))
    assert row["median_difference"] == pytest.approx(0.1)


def test_small_comparisons_give_no_interval_and_no_p() -> None:
    (row,) = compared(scored("m", "a", [0.5] * 5), scored("m", "b", [0.6] * 5), margin=0.2).to_dict("records")
    assert row["median_difference"] == pytest.approx(0.1)
    assert row["interval"] == "none"
    assert all(math.isnan(row[name]) for name in ("low", "high", "p", "p_holm", "p_equivalent"))


def test_a_comparison_by_subject() -> None:
    # Seven subjects with two knees each. One subject's knees differ in opposite ways and cancel: six differences of
    # one sign remain, whose p is 2 / 2**6.
    right = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.25]
    left = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.25]
    base = scored("m", "point", [0.5] * 14)
    other = scored("m", "box", [0.5 + value for value in (*right, *left)])
    (row,) = compared(base, other, groups=knees([f"s{index % 7}" for index in range(14)])).to_dict("records")
    assert (row["n"], row["groups"], row["interval"]) == (14, 7, "bootstrap by group")
    assert row["median_difference"] == pytest.approx(0.035)
    assert row["p"] == pytest.approx(2 / 64)
    assert row["effect_size"] == 1
    assert 0.01 - 1e-9 <= row["low"] < 0.035 < row["high"] <= 0.06 + 1e-9
    (alone,) = compared(base, other).to_dict("records")
    assert (alone["groups"], alone["interval"]) == (14, "order statistics")
    assert alone["p"] < row["p"]  # what counting the knees as independent would claim


def test_opposite_volumes_of_subjects_are_no_significance() -> None:
    """Differences of 0.1, 0.2 and -0.3 in each of seven subjects once gave p = 0.0156 and an effect of -1 or 1."""
    base = scored("m", "point", [0.4] * 21)
    other = scored("m", "box", [0.4 + value for _ in range(7) for value in (0.1, 0.2, -0.3)])
    (row,) = compared(base, other, groups=knees([f"s{index // 3}" for index in range(21)])).to_dict("records")
    assert (row["n"], row["groups"]) == (21, 7)
    assert math.isnan(row["p"])
    assert math.isnan(row["effect_size"])


def test_comparisons_are_corrected_within_their_kind() -> None:
    base, better, best = [0.5] * 6, [0.51, 0.52, 0.53, 0.54, 0.55, 0.56], [0.71, 0.73, 0.75, 0.77, 0.79, 0.81]
    parts = [scored("a", "s", base), scored("b", "s", better), scored("c", "s", best), scored("c", "t", base)]
    table = compared(*parts).set_index("kind")
    assert table["p"].tolist() == pytest.approx([2 / 64] * 4)
    assert table.loc["models", "p_holm"].tolist() == pytest.approx([6 / 64] * 3)
    assert table.loc["schemes", "p_holm"] == pytest.approx(2 / 64)  # the only one of its kind


def test_on_par() -> None:
    base = scored("m", "point", [0.5] * 8)
    near = scored("m", "box", [0.51, 0.49, 0.52, 0.48, 0.5, 0.51, 0.5, 0.49])
    (row,) = compared(base, near, margin=0.05).to_dict("records")
    assert row["margin"] == 0.05
    assert row["p_equivalent"] == row["p_equivalent_holm"] == pytest.approx(1 / 256)
    (row,) = compared(base, near, margin=0.01).to_dict("records")
    assert row["p_equivalent"] > 0.05


def test_repetitions_are_one_configuration() -> None:
    parts = [scored("m", "box_1", [0.6] * 6), scored("m", "box_2", [0.8] * 6), scored("m", "point", [0.5] * 6)]
    (row,) = compared(*parts, repetitions={"box_1": "box", "box_2": "box"}).to_dict("records")
    assert (row["scheme"], row["other_scheme"]) == ("box", "point")
    assert row["median_difference"] == pytest.approx(-0.2)


@pytest.mark.parametrize("scores", [scored("m", "point", [0.5]), scored("m", "point", [NAN], status="failed")])
def test_nothing_to_compare(scores: pd.DataFrame) -> None:
    table = comparisons(scores, COMBINED_ALONE)
    assert len(table) == 0
    assert {"model", "scheme", "other_model", "other_scheme", "median_difference", "p", "p_holm"} <= set(table.columns)


# The best one, and what cannot be told from it


def standing(*parts: pd.DataFrame, groups: dict[str, str] | None = None) -> dict[str, tuple[str, bool | None]]:
    table = value_table(pd.concat(parts), "combined")
    return {scheme: value for (_, scheme), value in standings(table, groups or {}).items()}


def test_a_few_easy_volumes_are_not_the_best() -> None:
    """A median of 0.98 over three easy volumes stands beside one of 0.80 over twelve."""
    easy = scored("m", "easy", [0.99, 0.98, 0.97, *[NAN] * 9])
    found = standing(easy, scored("m", "all", [0.9, 0.91, 0.89, *[0.8] * 9]), scored("m", "poor", [0.1] * 12))
    assert found == {"easy": ("not compared", False), "all": ("best", True), "poor": ("below", True)}


def test_the_best_is_chosen_over_the_volumes_that_all_have() -> None:
    """Without its two hardest volumes `lucky` has the higher median, and over the ten that both have the lower one."""
    lucky = [0.86, 0.87, 0.88, 0.89, 0.90, 0.91, 0.92, 0.93, 0.94, 0.95, NAN, NAN]
    steady = [*(value + 0.005 for value in lucky[:10]), 0.1, 0.1]
    assert np.nanmedian(lucky) > np.median(steady)
    found = standing(scored("m", "lucky", lucky), scored("m", "steady", steady))
    assert found == {"lucky": ("below", False), "steady": ("best", True)}


def test_what_cannot_be_told_from_the_best_is_tied_with_it() -> None:
    best = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87]
    near = [0.81, 0.80, 0.83, 0.82, 0.83, 0.86, 0.85, 0.86]
    far = [value - 0.1 - index / 1000 for index, value in enumerate(best)]
    found = standing(scored("m", "best", best), scored("m", "near", near), scored("m", "far", far))
    assert found == {"best": ("best", True), "near": ("tied", True), "far": ("below", True)}


def test_ties_are_corrected_for_their_number() -> None:
    # Six differences of one sign: p = 2/64 = 0.031 alone, and 0.0625 among two.
    best, below = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.89, 0.78, 0.67, 0.56, 0.45, 0.34]
    assert standing(scored("m", "a", best), scored("m", "b", below))["b"] == ("below", True)
    assert standing(scored("m", "a", best), scored("m", "b", below), scored("m", "c", below))["b"] == ("tied", True)


def test_ties_count_subjects() -> None:
    # Six subjects with two knees each: 12 one-sided differences would give p = 2/4096; by subject it is 2/64, and two
    # configurations beside the best make it 0.0625.
    best = [0.9 - index / 100 for index in range(12)]
    below = [value - 0.01 - index / 1000 for index, value in enumerate(best)]
    parts = scored("m", "a", best), scored("m", "b", below), scored("m", "c", below)
    assert standing(*parts)["b"] == ("below", True)
    assert standing(*parts, groups=knees([f"s{index // 2}" for index in range(12)]))["b"] == ("tied", True)


def test_equal_medians_are_both_the_best() -> None:
    found = standing(scored("m", "a", [0.5] * 6), scored("m", "b", [0.4, 0.6, 0.5, 0.5, 0.5, 0.5]))
    assert found == {"a": ("best", True), "b": ("best", True)}


def test_identical_masks_are_tied() -> None:
    values = list(np.linspace(0.1, 0.9, 9))
    found = standing(scored("m", "a", values), scored("m", "b", [*values[:8], 0.95]), scored("m", "c", values))
    assert {value for value, _ in found.values()} == {"best"}  # the medians are equal
    found = standing(scored("m", "a", values), scored("m", "b", [*values[:4], 0.4, *values[5:]]))
    assert found == {"a": ("best", True), "b": ("tied", True)}  # one difference is too few for a test


def test_configurations_over_different_volumes_have_no_best() -> None:
    found = standing(scored("m", "a", [0.5, NAN]), scored("m", "b", [NAN, 0.6]), scored("m", "c", [NAN, NAN]))
    assert found == {"a": ("not compared", False), "b": ("not compared", False), "c": ("", None)}
    assert standing(scored("m", "a", [0.5]), scored("m", "b", [NAN])) == {"a": ("best", True), "b": ("", None)}


def test_nothing_stands_to_nothing() -> None:
    design = TableDesign(scored=[])
    assert standings(value_table(scored("m", "a", [NAN]), "combined"), design.groups) == {("m", "a"): ("", None)}
