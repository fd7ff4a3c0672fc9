"""Curves of corrections and the worth of confidence, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from volprompt.tables.confidence import confidence, expected_dice
from volprompt.tables.corrections import corrections


def rounds(volume: str, dice: list[float], scheme: str = "corrected", structure: str = "femur") -> pd.DataFrame:
    named = {"model": "m", "scheme": scheme, "volume": volume, "structure": structure}
    rows = [{**named, "round": number, "prompts": 1 + number, "dice": d, "nsd": d / 2} for number, d in enumerate(dice)]
    return pd.DataFrame(rows)


def test_a_curve_of_one_volume() -> None:
    table = corrections(rounds("a", [0.5, 0.8, 0.9, 1.0]), {"corrected": 3}).set_index("round")
    assert table["dice"].tolist() == [0.5, 0.8, 0.9, 1.0]
    assert table["prompts"].tolist() == [1, 2, 3, 4]
    # Trapezoids: (0.65 + 0.85 + 0.95) / 3.
    assert table["dice_auc"].unique().tolist() == pytest.approx([2.45 / 3])
    assert table["nsd_auc"].unique().tolist() == pytest.approx([2.45 / 6])
    assert table.loc[0, ["rounds_to_85", "rounds_to_90", "rounds_to_95"]].tolist() == ["2", "2", "3"]
    assert math.isnan(table.loc[0, "dice_low"])  # of one volume there is no interval


def test_a_volume_that_ended_early_keeps_its_last_values() -> None:
    table = corrections(pd.concat([rounds("a", [0.9]), rounds("b", [0.5, 0.7, 0.9])]), {"corrected": 2})
    assert table["n"].tolist() == [2, 2, 2]
    assert table["dice"].tolist() == pytest.approx([0.7, 0.8, 0.9])
    assert table["prompts"].tolist() == [1, 1.5, 2]  # nobody clicks on what is finished
    assert table["dice_auc"].iloc[0] == pytest.approx((0.9 + (0.6 + 0.8) / 2) / 2)


def test_curves_are_as_long_as_the_scheme_says() -> None:
    table = corrections(rounds("a", [0.9, 0.96]), {"corrected": 4})
    assert table["dice"].tolist() == [0.9, 0.96, 0.96, 0.96, 0.96]


def test_volumes_that_never_reach_a_dice_count_as_more_than_all_rounds() -> None:
    parts = [rounds("a", [0.5, 0.6, 0.7]), rounds("b", [0.5, 0.86, 0.86]), rounds("c", [0.1, 0.2, 0.3])]
    table = corrections(pd.concat(parts), {"corrected": 2})
    assert table["rounds_to_85"].iloc[0] == "> 2"
    assert table["never_85"].iloc[0] == 2
    two = corrections(pd.concat([parts[1], rounds("d", [0.9, 0.9, 0.9]), parts[0]]), {"corrected": 2})
    assert (two["rounds_to_85"].iloc[0], two["never_85"].iloc[0]) == ("1", 1)


def test_volumes_without_a_dice_are_left_out() -> None:
    table = corrections(pd.concat([rounds("a", [0.5, 1.0]), rounds("b", [math.nan, math.nan])]), {"corrected": 1})
    assert table["n"].tolist() == [1, 1]
    assert table["dice"].tolist() == [0.5, 1.0]


def test_no_corrections_at_all() -> None:
    table = corrections(pd.DataFrame(columns=["model", "scheme", "structure"]), {})
    assert len(table) == 0
    assert {"round", "dice_auc", "rounds_to_95"} <= set(table.columns)


def scores(dice: list[float], sure: list[float], status: str = "ok") -> pd.DataFrame:
    named = {"model": "m", "scheme": "s", "structure": "combined", "object_score": math.nan}
    return pd.DataFrame(
        [
            {**named, "volume": f"{status}{i}", "dice": d, "predicted_iou": p, "status": status}
            for i, (d, p) in enumerate(zip(dice, sure, strict=True))
        ]
    )


def test_confidence_by_hand() -> None:
    """Of 2 x 4 pairs of a bad and a good volume 7 are in order, and one is equal: 7.5 of 8."""
    table = scores([0.3, 0.5, 0.85, 0.9, 0.95, 0.99], [0.2, 0.6, 0.6, 0.7, 0.8, 0.9])
    (row,) = confidence(table, 0.8).itertuples()
    assert (row.measure, row.n, row.unacceptable) == ("predicted_iou", 6, 2)
    assert row.auroc == pytest.approx(7.5 / 8)
    # Below 0.7 lie both bad ones, and one of four good ones (gain 1.75); below 0.6 one bad one and no good one (1.5).
    assert row.look_below == 0.7
    assert 0.98 < row.spearman < 1


def test_confidence_needs_good_and_bad_volumes() -> None:
    (row,) = confidence(scores([0.9, 0.95], [0.5, 0.6]), 0.8).itertuples()
    assert math.isnan(row.auroc)
    assert math.isnan(row.look_below)
    assert math.isnan(row.spearman)  # of two volumes
    assert row.unacceptable == 0


def test_expected_dice_of_volumes_without_a_reference() -> None:
    known = scores([0.2, 0.4, 0.3, 0.6, 0.8, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    new = scores([math.nan] * 4, [0.25, 0.45, 0.0, 0.99], "no_reference")
    found = expected_dice(pd.concat([known, new])).set_index("volume")["expected_dice"]
    # 0.4 and 0.3 fall: both are taken as 0.35. 0.45 lies half way between 0.6 and 0.8; beyond the ends it stays.
    assert found.tolist() == pytest.approx([0.35, 0.7, 0.2, 0.9])
    few = expected_dice(pd.concat([known.iloc[:5], new]))
    assert np.isnan(few["expected_dice"]).all()
