"""Agreement of volumes and the share of acceptable slices, against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volprompt.files import write_table
from volprompt.tables.acceptable import acceptable_slices
from volprompt.tables.agreement import agreement, limits_of_agreement

NAN = float("nan")
ALONE = np.arange(6).astype(str)


def scored(predicted: list[float], reference: list[float], structure: str = "femur") -> pd.DataFrame:
    named = {"model": "m", "scheme": "s", "structure": structure, "status": "ok"}
    names = [f"v{index}" for index in range(len(predicted))]
    return pd.DataFrame({"volume": names, "volume_mm3": predicted, "reference_mm3": reference}).assign(**named)


def test_limits_of_single_volumes() -> None:
    """Differences 1 to 6: mean 3.5, variance 17.5 / 5."""
    found = limits_of_agreement(np.array([1.0, 2, 3, 4, 5, 6]), ALONE)
    assert found == pytest.approx((3.5, 3.5**0.5, 3.5 - 1.96 * 3.5**0.5, 3.5 + 1.96 * 3.5**0.5))


def test_limits_with_two_volumes_of_each_subject() -> None:
    """Six subjects with means 1 to 6, each with a volume 1 below and one 1 above.

    Within: 12 * 1 / 6 = 2. Between: 2 * 17.5 / 5 = 7, of which (7 - 2) / 2 is the subjects' own. Together 4.5.
    """
    differences = np.repeat(np.arange(1.0, 7), 2) + np.tile([-1, 1], 6)
    found = limits_of_agreement(differences, np.repeat(ALONE, 2))
    assert found == pytest.approx((3.5, 4.5**0.5, 3.5 - 1.96 * 4.5**0.5, 3.5 + 1.96 * 4.5**0.5))
    # Subjects that do not differ at all: the component between them is not negative.
    found = limits_of_agreement(np.tile([-1.0, 1.0], 6), np.repeat(ALONE, 2))
    assert found.sd == pytest.approx(2**0.5)


def test_limits_where_one_subject_has_more_volumes() -> None:
    """Five subjects with one volume and one with three: typical number (8**2 - 14) / (5 * 8) = 1.25."""
    differences = np.array([1.0, 2, 3, 4, 5, 7, 9, 11])
    found = limits_of_agreement(differences, np.array([*"abcde", *"fff"]))
    bias = 42 / 8
    between = (sum((x - bias) ** 2 for x in (1, 2, 3, 4, 5)) + 3 * (9 - bias) ** 2) / 5
    within = (4 + 0 + 4) / 2
    assert found[:2] == pytest.approx((bias, ((between - within) / 1.25 + within) ** 0.5))


def test_few_subjects_have_no_limits() -> None:
    of_five = limits_of_agreement(np.array([1.0, 2, 3, 4, 5, 6]), np.array([*"abcdee"]))
    assert of_five.bias == 3.5
    assert of_five.sd > 0
    assert math.isnan(of_five.low)
    of_one = limits_of_agreement(np.array([2.0, 4.0]), np.array(["a", "a"]))
    assert of_one.bias == 3
    assert math.isnan(of_one.sd)
    assert all(math.isnan(value) for value in limits_of_agreement(np.empty(0), np.empty(0, str)))


def test_agreement_in_millilitres_and_percent() -> None:
    """0.2 ml too much of 1 ml on average, exactly; and a volume that was missed altogether."""
    table = pd.concat([scored([1100.0] * 6, [900.0] * 6), scored([0.0, 0.0], [500.0, 0.0], "tibia")])
    table = pd.concat([table, scored([1.0], [2.0]).assign(volume="x", status="failed")])
    found = agreement(table, ["femur", "tibia"], {"v0": "a", "v1": "a"}).set_index("structure")
    assert list(found.index) == ["femur", "tibia", "combined"]
    femur = found.loc["femur"]
    assert femur[["n", "groups"]].tolist() == [6, 5]
    assert femur[["bias_ml", "sd_ml", "bias_percent"]].tolist() == pytest.approx([0.2, 0, 20])
    assert femur[["low_ml", "high_percent"]].isna().all()  # five subjects
    tibia = found.loc["tibia"]
    assert tibia[["n", "bias_ml", "bias_percent"]].tolist() == pytest.approx([2, -0.25, -200])
    assert (found.loc["combined", "n"], math.isnan(found.loc["combined", "bias_ml"])) == (0, True)
    whole = agreement(table, ["femur"]).set_index("structure").loc["femur"]
    assert whole[["low_ml", "high_ml"]].tolist() == pytest.approx([0.2, 0.2])


def test_acceptable_slices(tmp_path: Path) -> None:
    """Slices with Dice 0.8, 0.79, 1, 0 (predicted alone), 0 (missed), and one that both leave empty."""
    counts = [(8, 10, 10), (79, 100, 100), (3, 3, 3), (0, 4, 0), (0, 0, 4), (0, 0, 0)]
    table = pd.DataFrame(counts, columns=["intersection", "predicted", "reference"])
    first = table.assign(model="m", scheme="s", structure="femur", volume="a")
    second = table.iloc[2:3].assign(model="m", scheme="s", structure="femur", volume="b")
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    write_table(
        pd.concat([first, table.iloc[5:].assign(model="m", scheme="s", structure="tibia", volume="a")]), paths[0]
    )
    write_table(second, paths[1])
    (row,) = acceptable_slices(paths, 0.8).to_dict("records")
    assert (row["structure"], row["n"], row["slices"], row["acceptable_share"]) == ("femur", 2, 6, 3 / 6)
    assert math.isnan(row["low"])
    (row,) = acceptable_slices(paths, 0.79).to_dict("records")
    assert row["acceptable_share"] == pytest.approx(4 / 6)


def test_interval_of_acceptable_slices(tmp_path: Path) -> None:
    table = pd.DataFrame({"intersection": 5, "predicted": 5, "reference": 5, "volume": [f"v{i}" for i in range(7)]})
    table = table.assign(model="m", scheme="s", structure="femur")
    write_table(table, tmp_path / "0.parquet")
    (row,) = acceptable_slices([tmp_path / "0.parquet"], 0.8).to_dict("records")
    assert (row["low"], row["acceptable_share"], row["high"]) == (1, 1, 1)
    (row,) = acceptable_slices([tmp_path / "0.parquet"], 0.8, {"v0": "s", "v1": "s"}).to_dict("records")
    assert row["low"] == 1  # six subjects
    (row,) = acceptable_slices([tmp_path / "0.parquet"], 0.8, dict.fromkeys(["v0", "v1", "v2"], "s")).to_dict("records")
    assert math.isnan(row["low"])


def test_acceptable_slices_of_no_mask(tmp_path: Path) -> None:
    columns = ["model", "scheme", "structure", "volume", "intersection", "predicted", "reference"]
    empty = pd.DataFrame({name: pd.Series(dtype="int64" if name in columns[4:] else "string") for name in columns})
    write_table(empty, tmp_path / "0.parquet")
    assert len(acceptable_slices([tmp_path / "0.parquet"], 0.8)) == 0
