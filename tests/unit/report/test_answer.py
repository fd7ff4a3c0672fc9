"""The first screen's answer: small tables whose sentence, numbers and hardest volumes are known by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from volprompt.report.answer import HardVolume, Tile, answer, best_in_words, hardest_volumes
from volprompt.report.shards import StudyDesign

NAN = float("nan")


def medians(*rows: tuple[str, float, str], groups: int = 10, interval: bool = True) -> pd.DataFrame:
    """Rows (scheme, combined, standing) of the model `sam`."""
    return pd.DataFrame(
        [
            {
                "model": "sam",
                "scheme": scheme,
                "combined": combined,
                "combined_standing": standing,
                "combined_low": combined - 0.01 if interval else NAN,
                "combined_high": combined + 0.02 if interval else NAN,
                "n": groups,
                "groups": groups,
            }
            for scheme, combined, standing in rows
        ]
    )


def ranks(**shares: float) -> pd.DataFrame:
    return pd.DataFrame([{"model": "sam", "scheme": scheme, "first_share": share} for scheme, share in shares.items()])


def sentence(table: pd.DataFrame, shares: pd.DataFrame | None = None) -> str:
    parts = best_in_words(table, pd.DataFrame() if shares is None else shares)
    assert all(parts), "an empty part would be stressed"
    return "".join(parts)


def test_the_best_one_and_what_is_tied_with_it() -> None:
    table = medians(("point", 0.9, "tied"), ("box", 0.95, "best"), ("video", 0.8, ""))
    assert sentence(table, ranks(point=0.2, box=0.8)) == (
        "The highest median Dice is that of sam with box: 0.950 [0.940, 0.970] over 10 volumes, first in 80.0 % of the "
        "resamples. A signed-rank test cannot tell it from sam with point."
    )


def test_the_best_one_by_itself() -> None:
    table = medians(("point", 0.9, ""), ("box", 0.95, "best"))
    assert sentence(table).endswith(
        "Every other configuration that was compared with it is worse by a signed-rank test."
    )


def test_another_one_that_is_equally_good_is_named() -> None:
    table = medians(("point", 0.9, ""), ("box", 0.95, "best"), ("copy", 0.95, "best"))
    assert sentence(table).endswith("A signed-rank test cannot tell it from sam with copy.")


def test_many_ties_are_counted() -> None:
    table = medians(("box", 0.95, "best"), *((f"s{number}", 0.9, "tied") for number in range(5)))
    assert sentence(table).endswith("cannot tell it from sam with s0, sam with s1, sam with s2 and 2 more.")


@pytest.mark.parametrize(("others", "can"), [(6, True), (7, False)])
def test_too_many_comparisons_for_so_few_subjects(others: int, can: bool) -> None:
    """With 8 subjects no p is below 2 / 2^8 = 1 / 128: six comparisons leave 0.047, seven 0.055."""
    table = medians(("box", 0.95, "best"), *((f"s{number}", 0.5, "tied") for number in range(others)), groups=8)
    said = sentence(table)
    assert ("cannot tell it from" in said) == can
    if not can:
        assert said.endswith(
            "With 8 subjects and 7 comparisons no signed-rank test can find a difference, however large."
        )


def test_one_that_can_be_told_apart() -> None:
    """Where a test has found a difference, nothing says that none can."""
    table = medians(
        ("box", 0.95, "best"), ("bad", 0.1, "below"), *((f"s{number}", 0.9, "tied") for number in range(7)), groups=8
    )
    assert sentence(table).endswith("cannot tell it from sam with s0, sam with s1, sam with s2 and 4 more.")


def test_few_subjects() -> None:
    table = medians(("point", 0.9, "untested"), ("box", 0.95, "best"), groups=1, interval=False)
    assert sentence(table, ranks(point=NAN, box=NAN)) == (
        "The highest median Dice is that of sam with box: 0.950 over 1 volume. With 1 subject no test can tell the "
        "configurations apart."
    )


def test_a_best_one_that_is_none_by_number() -> None:
    """A configuration with a higher median over other volumes is not the best one."""
    table = medians(("point", 0.99, "not compared"), ("box", 0.95, "best"))
    assert "sam with box" in sentence(table)


def test_one_configuration() -> None:
    assert sentence(medians(("box", 0.95, ""))) == (
        "The one configuration, sam with box, has a median Dice of 0.950 [0.940, 0.970] over 10 volumes."
    )


@pytest.mark.parametrize("table", [medians(("box", NAN, "")), medians().reindex(columns=medians(("a", 1, "")).columns)])
def test_no_score(table: pd.DataFrame) -> None:
    assert sentence(table).startswith("No volume could be scored")


def score(volume: str, scheme: str, dice: float, status: str = "ok", structure: str = "combined") -> dict[str, Any]:
    keys = ("volume", "scheme", "dice", "status", "structure")
    return {"model": "sam", **dict(zip(keys, (volume, scheme, dice, status, structure), strict=True))}


SCORES = pd.DataFrame(
    [
        *(score("a", "point", 0.9), score("a", "box", 0.7), score("a", "box", 0.1, structure="femur")),
        *(score("b", "point", 0.5), score("b", "box", NAN, "failed")),
        *(score("c", "point", NAN, "no_reference"), score("c", "box", NAN, "no_reference")),
        *(score("d", "point", 0.8), score("d", "box", 0.8)),
    ]
)


def test_the_hardest_volumes() -> None:
    """By the mean over the configurations that have it; of equal ones the first."""
    assert hardest_volumes(SCORES) == [
        HardVolume("b", 0.5, 0.5, 0.5, 1),
        HardVolume("a", pytest.approx(0.8), 0.7, 0.9, 0),
        HardVolume("d", 0.8, 0.8, 0.8, 0),
    ]


def test_the_numbers() -> None:
    design = StudyDesign({"femur": [1]}, ["femur"], {}, {}, groups={"a": "one", "d": "one"})
    volumes = pd.DataFrame({"volume": ["a", "b", "c", "d", "e"], "status": ["ok", "ok", "ok", "ok", "failed"]})
    table = medians(("point", 0.9, "tied"), ("box", 0.95, "best"))
    found = answer(
        scores=SCORES, medians=table, ranks=ranks(), volumes=volumes, design=design, warnings=0, departures=7
    )
    assert found.tiles == [
        Tile("3", "volumes scored", "single"),
        Tile("2", "subjects", "single"),
        Tile("2", "configurations", "medians"),
        Tile("2", "volumes with a failure", "failed", True),
        Tile("1", "without reference", "failed"),
        Tile("0", "warnings about volumes", "failed"),
        Tile("7", "departures from the paper", "departures"),
    ]
    # A study that does not reproduce the paper does not depart from it, and warnings are to be seen.
    own = answer(
        scores=SCORES, medians=table, ranks=ranks(), volumes=volumes, design=design, warnings=1, departures=None
    )
    assert own.tiles == [*found.tiles[:-2], Tile("1", "warning about volumes", "failed", True)]
