"""Ranks of configurations against values worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats
from tests.unit.tables.score_tables import NAN, knees, scored

from volprompt.tables.ranks import ranks


def test_one_configuration_always_wins() -> None:
    parts = [scored("m", "good", [0.8] * 6), scored("m", "best", [0.9] * 6), scored("m", "poor", [0.1] * 6)]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert table["rank"].to_dict() == {"good": 2, "best": 1, "poor": 3}
    assert (table["rank_low"] == table["rank"]).all()
    assert (table["rank_high"] == table["rank"]).all()
    assert table["first_share"].to_dict() == {"good": 0, "best": 1, "poor": 0}
    assert (table["n"] == 6).all()
    assert (table["groups"] == 6).all()


def test_ranks_are_by_median_not_by_mean() -> None:
    parts = [scored("m", "median", [0.0, 0.0, 0.9, 0.9, 0.9]), scored("m", "mean", [0.8] * 5)]
    assert ranks(pd.concat(parts))["rank"].tolist() == [1, 2]  # means of 0.54 and 0.8


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


def test_the_ranks_that_95_percent_of_the_resamples_have() -> None:
    # The median of `rarely` is 1, above `middle`, where at least 9 of 17 draws hit one of its 5 ones: in 3.6 % of the
    # resamples. That is within 2.5 to 97.5 %, and would be outside of 5 to 95 %.
    assert stats.binom.sf(8, 17, 5 / 17) == pytest.approx(0.0356, abs=1e-4)
    parts = [scored("m", "rarely", [*[1] * 5, *[0] * 12]), scored("m", "middle", [0.5] * 17)]
    rarely, middle = ranks(pd.concat(parts)).to_dict("records")
    assert (rarely["rank_low"], rarely["rank_high"]) == (1, 2)
    assert (middle["rank_low"], middle["rank_high"]) == (1, 2)


def test_ranks_are_over_the_shared_volumes() -> None:
    parts = [
        scored("m", "a", [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]),
        scored("m", "b", [0.4, 0.4, 0.4, 0.4, NAN, NAN, NAN]),
        scored("m", "failed", [NAN] * 7, status="failed"),
    ]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert (table["n"] == 4).all()
    assert table["own_n"].to_dict() == {"a": 7, "b": 4, "failed": 0}
    assert table["rank"].to_dict() == pytest.approx({"a": 1, "b": 2, "failed": NAN}, nan_ok=True)
    assert table[["rank_low", "rank_high", "first_share"]].isna().all(axis=None)  # four volumes


def test_a_configuration_with_a_single_volume_does_not_shrink_the_others_ranks() -> None:
    parts = [
        scored("m", "single", [0.99, *[NAN] * 7]),
        scored("m", "good", [0.8] * 8),
        scored("m", "most", [0.9] * 7 + [NAN]),
    ]
    table = ranks(pd.concat(parts)).set_index("scheme")
    assert (table["n"] == 7).all()
    assert table["rank"].to_dict() == pytest.approx({"single": NAN, "good": 2, "most": 1}, nan_ok=True)
    assert (table["own_n"]["single"], table["first_share"]["most"]) == (1, 1)


def test_ranks_resample_subjects() -> None:
    parts = pd.concat([scored("m", "a", [0.5] * 10), scored("m", "b", [0.4] * 10)])
    five = ranks(parts, knees([f"s{index % 5}" for index in range(10)]))
    assert five["rank_low"].isna().all()
    assert (five["groups"] == 5).all()
    assert ranks(parts)["rank_low"].tolist() == [1, 2]


def test_repetitions_are_ranked_as_one() -> None:
    parts = [scored("m", "box_1", [0.9] * 6), scored("m", "box_2", [0.3] * 6), scored("m", "point", [0.7] * 6)]
    table = ranks(pd.concat(parts), repetitions={"box_1": "box", "box_2": "box"})
    assert table[["scheme", "rank"]].to_numpy().tolist() == [["box", 2], ["point", 1]]


def test_ranks_of_nothing() -> None:
    (row,) = ranks(scored("m", "a", [NAN], status="failed")).to_dict("records")
    assert (row["n"], math.isnan(row["rank"])) == (0, True)
