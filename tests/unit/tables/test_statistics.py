"""Medians, intervals and comparisons against values worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from volprompt.columns import (
    CONFIGURATION_COLUMNS,
    COST_COLUMNS,
    STRUCTURE_COLUMNS,
    SURFACE_COLUMNS,
    column_of,
    median_columns,
    reserved_names,
)
from volprompt.tables.comparisons import comparisons, holm, rank_biserial, signed_rank
from volprompt.tables.configurations import configurations, dice_table
from volprompt.tables.cost import cost
from volprompt.tables.medians import median_interval, medians, summarize
from volprompt.tables.ranks import ranks

NAN = float("nan")

# The interval runs from the k-th smallest to the k-th largest value, with the largest k for which the binomial
# distribution B(n, 1/2) has P(X <= k - 1) < 0.025:
#   n = 6:  P(X <= 0) = 1/64 = 0.016;          P(X <= 1) = 7/64 = 0.109              -> k = 1
#   n = 10: P(X <= 1) = 11/1024 = 0.011;       P(X <= 2) = 56/1024 = 0.055           -> k = 2
#   n = 20: P(X <= 5) = 21700/1048576 = 0.021; P(X <= 6) = 60460/1048576 = 0.058     -> k = 6
# With n = 5, P(X <= 0) = 1/32 = 0.031 already: there is no interval.


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15)])
def test_interval_of_a_median(n: int, low: int, high: int) -> None:
    values = np.random.default_rng(5).permutation(np.arange(1, n + 1))
    assert median_interval(values) == (low, high)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_values_for_an_interval(n: int) -> None:
    assert all(math.isnan(value) for value in median_interval(list(range(n))))


def test_interval_at_another_level() -> None:
    # n = 5: P(X <= 0) = 0.031 < 0.05 and P(X <= 1) = 6/32 = 0.19, so a 90 % interval has k = 1.
    assert median_interval([3, 1, 2, 5, 4], level=0.9) == (1, 5)


def test_summary() -> None:
    # Of 0, 1, ..., 8: the quartiles are 2 and 6; n = 9 has P(X <= 1) = 10/512 = 0.0195, P(X <= 2) = 0.09, so k = 2.
    summary = summarize([8, 3, NAN, 0, 5, 1, 7, NAN, 2, 6, 4])
    bounds = summary.pop("bootstrap_low"), summary.pop("bootstrap_high")
    assert 0 <= bounds[0] < 4 < bounds[1] <= 8
    assert summary == {"median": 4, "low": 1, "high": 7, "iqr": 4, "worst": 0, "undefined": 2}


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_summary_of_nothing(values: list[float]) -> None:
    summary = summarize(values)
    assert summary.pop("undefined") == len(values)
    assert all(math.isnan(value) for value in summary.values())


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        # Smallest first: 0.01 * 3, 0.03 * 2, then 0.04 * 1 raised to its predecessor's 0.06.
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, NAN, 0.01, 0.03], [0.06, NAN, 0.03, 0.06]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([NAN], [NAN]),
        ([], []),
    ],
)
def test_holm(given: list[float], corrected: list[float]) -> None:
    assert holm(given).tolist() == pytest.approx(corrected, nan_ok=True)


def test_signed_rank() -> None:
    # All six differences point the same way: 2 of the 2**6 patterns of signs are as extreme.
    assert signed_rank([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert signed_rank([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]) == pytest.approx(2 / 64)


def test_summary_by_subject() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, NAN]
    summary = summarize(values, ["a", "b", "c", "d", "e", "f", "f", "g"])
    assert 0.1 <= summary["bootstrap_low"] < 0.4 < summary["bootstrap_high"] <= 0.7
    summary = summarize(values, ["a", "b", "c", "d", "e", "e", "e", "g"])  # five subjects with a value
    assert math.isnan(summary["bootstrap_low"])
    assert (summary["low"], summary["high"]) == (0.1, 0.7)


def test_signed_rank_is_that_of_scipy() -> None:
    differences = np.random.default_rng(2).normal(0.1, 1, 60)
    assert signed_rank(differences) == stats.wilcoxon(differences).pvalue


# With five differences all of one sign, p is 2 / 2**5 = 0.06: no result would tell anything.
@pytest.mark.parametrize("differences", [[], [0, 0, 0], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 0]])
def test_signed_rank_of_fewer_than_six_differences(differences: list[float]) -> None:
    assert math.isnan(signed_rank(differences))


@pytest.mark.parametrize(
    ("differences", "correlation"),
    [
        ([0.3, -0.1, 0.2], (3 + 2 - 1) / 6),
        ([0.3, -0.1, 0.0, 0.2], (3 + 2 - 1) / 6),  # the zero is not ranked
        ([1, -1, 2], (1.5 - 1.5 + 3) / 6),
        ([-2, 1, -3, -4], (-2 + 1 - 3 - 4) / 10),
        ([0.1, 0.2], 1),
        ([-0.1], -1),
    ],
)
def test_rank_biserial(differences: list[float], correlation: float) -> None:
    assert rank_biserial(differences) == pytest.approx(correlation)


@pytest.mark.parametrize("differences", [[], [0, 0]])
def test_rank_biserial_without_any_difference(differences: list[float]) -> None:
    assert math.isnan(rank_biserial(differences))


# Tables


def scored(model: str, scheme: str, dice: list[float], structure: str = "combined", **more: Any) -> pd.DataFrame:
    volumes = [f"knee{index}" for index in range(len(dice))]
    given = {"experiment": "e", "model": model, "scheme": scheme, "structure": structure, "status": "ok"}
    surface = {column.name: NAN for column in SURFACE_COLUMNS}
    return pd.DataFrame({"volume": volumes, "dice": dice}).assign(**{**given, **surface, **more})


def ran(model: str, scheme: str, seconds: list[float], parameters: int = 1000, **more: Any) -> pd.DataFrame:
    volumes = [f"knee{index}" for index in range(len(seconds))]
    given = {"model": model, "scheme": scheme, "status": "ok", "parameters": parameters, **more}
    return pd.DataFrame({"volume": volumes, "seconds": seconds}).assign(**given)


NAMES = ("femur", "hip_left", "combined")


def test_columns_of_the_medians() -> None:
    scores = pd.concat([scored("m", "point", [0.5], name) for name in (*NAMES, "union")])
    table = medians(scores, ran("m", "point", [1.0]), ["femur", "hip_left"])
    named = [
        f"{name}{suffix}"
        for name in NAMES
        for suffix in ("", "_low", "_high", "_bootstrap_low", "_bootstrap_high", "_iqr", "_worst", "_undefined")
    ]
    surface = ["combined_nsd", "combined_hd95_mm", "combined_assd_mm"]
    assert list(table.columns) == ["model", "scheme", "parameters", "n", *named, *surface, "seconds_per_volume"]
    assert median_columns(["femur", "hip_left"]) == list(table.columns)
    assert reserved_names(NAMES[:2]) == set(table.columns) - set(NAMES[:2])  # no structure can have one of these names


def test_the_columns_of_the_medians_are_documented() -> None:
    """docs/results.md has the columns of `columns.py` in order, with their meanings."""
    columns = [(column.name, column.meaning) for column in CONFIGURATION_COLUMNS]
    columns += [(column_of("{structure}", column.name), column.meaning) for column in STRUCTURE_COLUMNS]
    columns += [(column_of("combined", column.name), column.meaning) for column in SURFACE_COLUMNS]
    columns += [(column.name, column.meaning) for column in COST_COLUMNS]
    text = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text[text.index("### Medians\n") : text.index("## Scores\n")]
    assert re.findall(r"^\| `(.+?)` \| (.+?) \|$", section, re.MULTILINE) == columns


def test_medians() -> None:
    femur = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, NAN]
    scores = pd.concat(
        [
            scored("m", "point", femur, "femur"),
            scored("m", "point", [0.9] * 7, "combined", nsd=[0.5, 0.7, NAN, 0.8, 0.9, 0.9, NAN], hd95_mm=2.0),
            scored("m", "box", [NAN], "femur", status="failed"),
            scored("m", "box", [NAN], "combined", status="failed"),
        ]
    )
    runs = pd.concat([ran("m", "point", [1.0, 9.0, 2.0]), ran("m", "box", [NAN], status="failed")])
    point, box = medians(scores, runs, ["femur"]).to_dict("records")
    assert (point["model"], point["scheme"], point["n"], point["parameters"]) == ("m", "point", 7, 1000)
    assert point["femur"] == pytest.approx(0.35)
    assert (point["femur_low"], point["femur_high"]) == (0.1, 0.6)
    assert point["femur_iqr"] == pytest.approx(0.25)  # from 0.225 to 0.475
    assert (point["femur_worst"], point["femur_undefined"]) == (0.1, 1)
    assert (point["combined"], point["combined_undefined"]) == (0.9, 0)
    assert (point["combined_bootstrap_low"], point["combined_bootstrap_high"]) == (0.9, 0.9)
    assert (point["combined_nsd"], point["combined_hd95_mm"]) == (0.8, 2.0)
    assert math.isnan(point["combined_assd_mm"])
    assert point["seconds_per_volume"] == 2.0
    assert (box["scheme"], box["n"]) == ("box", 0)
    assert math.isnan(box["femur"])
    assert pd.isna(box["parameters"])
    assert math.isnan(box["seconds_per_volume"])


def test_a_failed_volume_is_not_part_of_the_median() -> None:
    scores = scored("m", "point", [0.2, 0.4, 0.9]).assign(status=["ok", "ok", "failed"])
    (row,) = medians(scores, ran("m", "point", [1.0]), []).to_dict("records")
    assert (row["n"], row["combined"]) == (2, pytest.approx(0.3))


def test_order_of_the_configurations() -> None:
    scores = pd.concat([scored("b", "point", [0.1]), scored("a", "box", [0.1]), scored("a", "point", [0.1])])
    assert configurations(scores) == [("b", "point"), ("a", "box"), ("a", "point")]


def test_dice_by_volume_and_configuration() -> None:
    parts = [scored("b", "point", [0.1, 0.2]), scored("a", "box", [NAN, 0.4, 0.5]), scored("a", "box", [0.9], "femur")]
    table = dice_table(pd.concat(parts), "combined")
    assert list(table.columns) == [("b", "point"), ("a", "box")]
    assert table["b", "point"].to_dict() == pytest.approx({"knee0": 0.1, "knee1": 0.2, "knee2": NAN}, nan_ok=True)
    assert table["a", "box"].to_dict() == pytest.approx({"knee0": NAN, "knee1": 0.4, "knee2": 0.5}, nan_ok=True)


def test_which_pairs_are_compared() -> None:
    parts = [("a", "point"), ("a", "box"), ("b", "point"), ("b", "video")]
    table = comparisons(pd.concat([scored(model, scheme, [0.5, 0.6]) for model, scheme in parts]))
    pairs = {((row.model, row.scheme), (row.other_model, row.other_scheme)): row.kind for row in table.itertuples()}
    # Schemes within a model and models within a scheme; not two models under two schemes.
    assert pairs == {
        (("a", "point"), ("a", "box")): "schemes",
        (("a", "point"), ("b", "point")): "models",
        (("b", "point"), ("b", "video")): "schemes",
    }


def test_a_comparison() -> None:
    first = scored("m", "point", [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, NAN, 0.5])
    second = scored("m", "box", [0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.9, NAN])
    table = comparisons(pd.concat([first, second]))
    (row,) = table.to_dict("records")
    assert row["n"] == 6  # the volumes that both have
    assert row["median_difference"] == pytest.approx(0.035)  # the second minus the first
    assert (row["low"], row["high"]) == (pytest.approx(0.01), pytest.approx(0.06))
    assert (row["interval"], row["groups"], row["effect_size"]) == ("order statistics", 6, 1)
    assert row["p"] == row["p_holm"] == pytest.approx(2 / 64)


def test_comparisons_pair_by_volume_not_by_place() -> None:
    first = scored("m", "point", [0.1, 0.5, 0.9])
    second = scored("m", "box", [0.2, 0.6, 1.0]).iloc[::-1]
    (row,) = comparisons(pd.concat([first, second])).to_dict("records")
    assert (row["low"], row["high"]) == (pytest.approx(NAN, nan_ok=True), pytest.approx(NAN, nan_ok=True))
    assert row["median_difference"] == pytest.approx(0.1)


def test_small_comparisons_give_no_interval_and_no_p() -> None:
    (row,) = comparisons(pd.concat([scored("m", "a", [0.5] * 5), scored("m", "b", [0.6] * 5)])).to_dict("records")
    assert row["median_difference"] == pytest.approx(0.1)
    assert row["interval"] == "none"
    assert all(math.isnan(row[name]) for name in ("low", "high", "p", "p_holm"))


def test_a_comparison_by_subject() -> None:
    # Seven subjects with two knees each. One subject's knees differ in opposite ways and cancel: six differences of
    # one sign remain, whose p is 2 / 2**6.
    right = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.25]
    left = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.25]
    base = scored("m", "point", [0.5] * 14)
    other = scored("m", "box", [0.5 + value for value in (*right, *left)])
    groups = {f"knee{index}": f"subject{index % 7}" for index in range(14)}
    (row,) = comparisons(pd.concat([base, other]), groups).to_dict("records")
    assert (row["n"], row["groups"], row["interval"]) == (14, 7, "bootstrap by group")
    assert row["median_difference"] == pytest.approx(0.035)
    assert row["p"] == pytest.approx(2 / 64)
    assert row["effect_size"] == 1
    assert 0.01 <= row["low"] < 0.035 < row["high"] <= 0.06
    (alone,) = comparisons(pd.concat([base, other])).to_dict("records")
    assert (alone["groups"], alone["interval"]) == (14, "order statistics")
    assert alone["p"] < row["p"]  # what counting the knees as independent would claim


def test_comparisons_are_corrected_together() -> None:
    base = [0.5] * 6
    better = [0.51, 0.52, 0.53, 0.54, 0.55, 0.56]
    best = [0.71, 0.73, 0.75, 0.77, 0.79, 0.81]
    table = comparisons(pd.concat([scored("a", "s", base), scored("b", "s", better), scored("c", "s", best)]))
    assert table["p"].tolist() == pytest.approx([2 / 64] * 3)
    assert table["p_holm"].tolist() == pytest.approx([6 / 64] * 3)


@pytest.mark.parametrize("scores", [scored("m", "point", [0.5]), scored("m", "point", [NAN], status="failed")])
def test_nothing_to_compare(scores: pd.DataFrame) -> None:
    table = comparisons(scores)
    assert len(table) == 0
    assert {"model", "scheme", "other_model", "other_scheme", "median_difference", "p", "p_holm"} <= set(table.columns)


# Ranks


def test_one_configuration_always_wins() -> None:
    parts = [scored("m", "good", [0.8] * 6), scored("m", "best", [0.9] * 6), scored("m", "poor", [0.1] * 6)]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert table["rank"].to_dict() == {"good": 2, "best": 1, "poor": 3}
    assert (table["rank_low"] == table["rank"]).all()
    assert (table["rank_high"] == table["rank"]).all()
    assert table["first_share"].to_dict() == {"good": 0, "best": 1, "poor": 0}
    assert (table["n"] == 6).all()


def test_equal_configurations_share_their_rank() -> None:
    values = [0.3, 0.5, 0.9, 0.7, 0.6, 0.8]
    parts = [scored("m", "a", values), scored("m", "b", values), scored("m", "c", [0.1] * 6)]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert table["rank"].to_dict() == {"a": 1.5, "b": 1.5, "c": 3}
    assert table["rank_high"].to_dict() == {"a": 1.5, "b": 1.5, "c": 3}
    assert table["first_share"].to_dict() == {"a": 0.5, "b": 0.5, "c": 0}


def test_share_of_resamples_in_which_one_is_first() -> None:
    # The median of `either` is 1 where at least 4 of 7 draws hit one of its 4 ones, else 0; `middle` is always 0.5.
    parts = [scored("m", "either", [1, 1, 1, 1, 0, 0, 0]), scored("m", "middle", [0.5] * 7)]
    either, middle = ranks(pd.concat(parts)).to_dict("records")
    assert either["first_share"] == pytest.approx(stats.binom.sf(3, 7, 4 / 7), abs=0.04)
    assert either["first_share"] + middle["first_share"] == pytest.approx(1)
    assert [(row["rank"], row["rank_low"], row["rank_high"]) for row in (either, middle)] == [(1, 1, 2), (2, 1, 2)]


def test_ranks_are_over_the_shared_volumes() -> None:
    parts = [
        scored("m", "a", [0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]),
        scored("m", "b", [0.4, 0.4, 0.4, NAN, NAN, NAN, NAN]),
        scored("m", "failed", [NAN] * 7, status="failed"),
    ]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert (table["n"] == 3).all()
    assert table["rank"].to_dict() == pytest.approx({"a": 1, "b": 2, "failed": NAN}, nan_ok=True)
    assert table[["rank_low", "rank_high", "first_share"]].isna().all(axis=None)  # three volumes


def test_ranks_resample_subjects() -> None:
    parts = pd.concat([scored("m", "a", [0.5] * 10), scored("m", "b", [0.4] * 10)])
    five = {f"knee{index}": f"subject{index % 5}" for index in range(10)}
    assert ranks(parts, five)["rank_low"].isna().all()
    assert ranks(parts)["rank_low"].tolist() == [1, 2]


def test_ranks_of_nothing() -> None:
    (row,) = ranks(scored("m", "a", [NAN], status="failed")).to_dict("records")
    assert (row["n"], math.isnan(row["rank"])) == (0, True)


def test_cost() -> None:
    more = {
        "prompts": 4,
        "seconds_encode": 1.0,
        "seconds_prompt": 0.5,
        "slices_per_second": 2.0,
        "peak_gpu_memory_mb": NAN,
        "device": "CPU",
        "precision": "float32",
    }
    runs = pd.concat(
        [
            ran("m", "point", [3.0, 5.0, 100.0], **more).assign(peak_memory_mb=[100, 300, 200]),
            ran("m", "point", [1000.0], **{**more, "status": "failed"}).assign(peak_memory_mb=[999]),
        ]
    )
    scores = pd.concat([scored("m", "point", [0.5, 0.7, NAN]), scored("m", "point", [0.1], "femur")])
    (row,) = cost(runs, scores).to_dict("records")
    assert row["dice"] == pytest.approx(0.6)
    assert (row["model"], row["scheme"], row["volumes"], row["parameters"]) == ("m", "point", 3, 1000)
    assert (row["seconds_per_volume"], row["peak_memory_mb"]) == (5.0, 300)
    assert (row["device"], row["precision"], row["prompts_per_volume"]) == ("CPU", "float32", 4)
