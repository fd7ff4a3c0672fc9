"""Decay with the distance from the prompt, and how propagation fails, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from volprompt.tables.bootstrap import RESAMPLES, SEED, bootstrap_percentiles
from volprompt.tables.decay import SliceSize, decay, slice_sizes
from volprompt.tables.propagation import propagation

NAN = float("nan")


def decayed(table: pd.DataFrame, groups: dict[str, str] | None = None) -> pd.DataFrame:
    """The decay of volumes of one size."""
    return decay(table, dict.fromkeys(table["volume"], SliceSize(0.7, 0.16)), groups)


def slices(volume: str, counts: dict[int | None, tuple[int, int, int]], **more: Any) -> pd.DataFrame:
    """Slices of one volume: distance -> pixels of intersection, prediction, reference."""
    named = {"experiment": "e", "model": "m", "scheme": "point_video", "structure": "femur", **more}
    rows = [
        {"slice": index, "intersection": both, "predicted": predicted, "reference": reference}
        for index, (both, predicted, reference) in enumerate(counts.values())
    ]
    table = pd.DataFrame(rows).assign(volume=volume, distance=list(counts), **named)
    return table.astype({"distance": "Int32"})


# Five slices, prompted on the second; the fourth shows the prediction alone, the fifth nothing.
FIVE = {-1: (5, 5, 5), 0: (8, 10, 10), 1: (6, 8, 12), 2: (0, 4, 0), 3: (0, 0, 0)}
# Prompted on the first slice.
TWO = {0: (4, 5, 5), 1: (1, 2, 8)}


def test_decay_of_five_slices() -> None:
    table = decayed(slices("a", FIVE))
    assert list(table.columns) == [
        *("model", "scheme", "structure", "direction", "distance"),
        *("volumes", "groups", "dice", "low", "high", "median"),
        *("distance_mm", "bin_mm", "slice_mm"),
        *("volumes_by_mm", "groups_by_mm", "dice_by_mm", "low_by_mm", "high_by_mm", "median_by_mm"),
    ]
    assert list(zip(table["direction"], table["distance"], table["dice"], strict=True)) == [
        ("prompted", 0, pytest.approx(16 / 20)),
        ("forward", 1, pytest.approx(12 / 20)),
        ("forward", 2, 0.0),
        ("reverse", 1, 1.0),
    ]
    assert (table["median"] == table["dice"]).all()
    assert (table["volumes"] == 1).all()
    assert table[["low", "high"]].isna().all(axis=None)


def test_several_prompted_slices_have_several_slices_at_a_distance() -> None:
    # Slices 0 to 4 with prompts on 0 and 3: slices 1 and 4 are both one ahead, 2 is one before.
    found = [(5, 5, 5), (0, 4, 8), (3, 3, 3), (5, 5, 5), (6, 6, 6)]
    table = pd.concat([slices("a", {d: c}) for d, c in zip([0, 1, -1, 0, 1], found, strict=True)])
    found_at = decayed(table).set_index(["direction", "distance"])
    assert found_at["dice"].to_dict() == {
        ("prompted", 0): 1.0,
        ("forward", 1): pytest.approx(12 / 24),
        ("reverse", 1): 1.0,
    }
    assert (found_at["median"] == found_at["dice"]).all()


def test_decay_has_the_median_of_volumes_not_their_mean() -> None:
    parts = [slices(name, {0: (common, 10, 10)}) for name, common in (("a", 1), ("b", 2), ("c", 9))]
    (row,) = decayed(pd.concat(parts)).to_dict("records")
    assert (row["median"], row["median_by_mm"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert row["dice"] == pytest.approx(24 / 60)


def test_decay_counts_subjects() -> None:
    parts = pd.concat([slices(name, {0: (5, 10, 10)}) for name in ("a", "b", "c")])
    sizes = {name: SliceSize(1.0, 1.0) for name in ("a", "b", "c")}
    (row,) = decay(parts, sizes, {"a": "s", "b": "s"}).to_dict("records")
    assert (row["volumes"], row["groups"], row["groups_by_mm"]) == (3, 2, 2)


def test_decay_pools_pixels_and_takes_the_median_of_slices() -> None:
    table = decayed(pd.concat([slices("a", FIVE), slices("b", TWO)])).set_index(["direction", "distance"])
    assert table["volumes"].to_dict() == {
        ("prompted", 0): 2,
        ("forward", 1): 2,
        ("forward", 2): 1,
        ("reverse", 1): 1,
    }
    near = table.loc["forward", 1]
    assert near["dice"] == pytest.approx(2 * (6 + 1) / (8 + 12 + 2 + 8))
    assert near["median"] == pytest.approx((0.6 + 0.2) / 2)


def test_decay_is_of_each_configuration_and_structure_in_their_order() -> None:
    parts = [
        slices("a", TWO, model="z"),
        slices("a", TWO, model="z", structure="tibia"),
        slices("a", TWO, model="b"),
        slices("a", {None: (1, 1, 1)}, model="b", scheme="box"),
    ]
    table = decayed(pd.concat(parts))
    named = table[["model", "scheme", "structure"]].drop_duplicates().to_numpy().tolist()
    assert named == [["z", "point_video", "femur"], ["z", "point_video", "tibia"], ["b", "point_video", "femur"]]


def test_decay_without_any_video_scheme() -> None:
    table = decayed(slices("a", {None: (1, 1, 1)}, scheme="box"))
    assert len(table) == 0
    assert "median" in table.columns


def test_interval_of_the_decay_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    both = generator.integers(10, 100, 12)
    total = 2 * both + generator.integers(0, 100, 12)
    volumes = [f"v{index:02d}" for index in range(12)]
    parts = [
        slices(name, {0: (common, common, pixels - common)})
        for name, common, pixels in zip(volumes, both, total, strict=True)
    ]

    def pooled(intersection: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        return 2 * intersection.sum(axis=axis) / sizes.sum(axis=axis)

    theirs = stats.bootstrap(
        (both, total),
        pooled,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
        confidence_level=1 - 2 * bootstrap_percentiles(12)[0] / 100,
    )
    (row,) = decayed(pd.concat(parts)).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.confidence_interval))


def test_interval_of_the_decay_needs_six_subjects_with_something_there() -> None:
    names = [f"v{index}" for index in range(7)]
    # At distance 1 two of the seven volumes show nothing.
    table = pd.concat(
        [slices(name, {0: (4, 5, 5), 1: (4, 5, 5) if index > 1 else (0, 0, 0)}) for index, name in enumerate(names)]
    )
    at, next_to = decayed(table).to_dict("records")
    assert (at["volumes"], at["dice"], at["low"], at["high"]) == (7, 0.8, 0.8, 0.8)
    assert (next_to["volumes"], next_to["dice"]) == (5, 0.8)
    assert math.isnan(next_to["low"])
    at, _ = decayed(table, {"v0": "s", "v1": "s", "v2": "t", "v3": "t"}).to_dict("records")
    assert at["volumes"] == 7
    assert math.isnan(at["low"])  # five subjects


# Decay in millimetres


def test_slices_and_millimetres_are_the_same_where_all_volumes_are_alike() -> None:
    names = [f"v{index}" for index in range(7)]
    table = decayed(pd.concat([slices(name, FIVE if index % 2 else TWO) for index, name in enumerate(names)]))
    assert table["distance_mm"].tolist() == [0, 0.7, 1.4, 0.7]
    assert set(table["bin_mm"]) == set(table["slice_mm"]) == {0.7}
    assert table["low"].notna().any()
    for name in ("volumes", "dice", "low", "high", "median"):
        np.testing.assert_allclose(table[f"{name}_by_mm"].astype(float), table[name].astype(float))


def test_decay_in_millimetres_of_two_spacings() -> None:
    """Slices 1 mm apart with pixels of 1 mm2, and 2 mm apart with pixels of 4 mm2: bins of 2 mm.

    At 1 mm is the outer edge of the prompted slice's bin, which holds prompted slices alone; at 3 mm that of the first.
    """
    fine = {0: (4, 5, 5), 1: (3, 4, 4), 2: (2, 4, 4), 3: (1, 4, 4)}
    coarse = {0: (2, 2, 4), 1: (1, 2, 2)}
    sizes = {"fine": SliceSize(1.0, 1.0), "coarse": SliceSize(2.0, 4.0)}
    table = decay(pd.concat([slices("fine", fine), slices("coarse", coarse)]), sizes)
    assert table["distance"].tolist() == [0, 1, 2, 3]
    assert table["volumes"].tolist() == [2, 2, 1, 1]
    assert table["dice"].tolist() == pytest.approx([12 / 16, 8 / 12, 4 / 8, 2 / 8])
    assert table["distance_mm"].tolist() == [0, 2, 4, 6]
    assert set(table["bin_mm"]) == {2}
    assert table["slice_mm"].isna().all()
    assert table["volumes_by_mm"].tolist() == [2, 2, 1, 0]
    # 0: fine 8 of 10, coarse 4 * 4 of 4 * 6. 2 mm: fine at 1 and 2 mm, coarse at 2 mm. 4 mm: fine at 3 mm.
    expected = [(8 + 16) / (10 + 24), (2 * (3 + 2) + 4 * 2) / (8 + 8 + 4 * 4), 2 / 8]
    assert table["dice_by_mm"].tolist()[:3] == pytest.approx(expected)
    assert table["median_by_mm"].tolist()[:3] == pytest.approx([(0.8 + 4 / 6) / 2, (10 / 16 + 0.5) / 2, 0.25])
    assert table.loc[3, ["dice_by_mm", "median_by_mm"]].isna().all()


def test_thin_slices_are_none_of_the_prompted_bin_and_sides_are_alike() -> None:
    thin = {-1: (1, 2, 2), 0: (2, 2, 2), 1: (1, 2, 2)}
    table = decay(
        pd.concat([slices("thin", thin), slices("thick", {0: (1, 1, 1), -1: (0, 1, 1)})]),
        {"thin": SliceSize(0.5, 1.0), "thick": SliceSize(5.0, 1.0)},
    ).set_index("direction")
    assert table["dice_by_mm"].to_dict() == pytest.approx({"prompted": 1, "forward": 0.5, "reverse": 2 / 6})


def test_interval_in_millimetres_needs_six_subjects_in_the_bin() -> None:
    names = [f"v{index}" for index in range(12)]
    table = pd.concat([slices(name, {0: (4, 5, 5), 1: (3, 5, 5)}) for name in names])
    sizes = {name: SliceSize(0.5 if index < 7 else 1.0, 1.0) for index, name in enumerate(names)}
    at, near = decay(table, sizes, {"v0": "s", "v1": "s"}).to_dict("records")
    assert (at["volumes_by_mm"], near["volumes_by_mm"], near["low_by_mm"]) == (12, 12, pytest.approx(0.6))
    far = pd.concat([table, *(slices(name, {3: (1, 2, 2)}) for name in names[:6])])
    far_off = decay(far, sizes).set_index("distance_mm").loc[2]
    assert (far_off["volumes_by_mm"], far_off["low_by_mm"]) == (6, pytest.approx(0.5))
    of_five = decay(far, sizes, {"v0": "s", "v1": "s"}).set_index("distance_mm").loc[2]
    assert of_five["volumes_by_mm"] == 6
    assert math.isnan(of_five["low_by_mm"])


def test_slice_sizes() -> None:
    table = pd.DataFrame(
        {"volume": ["a", "b"], "status": ["ok", "failed"], "spacing": [np.array([3.0, 0.5, 0.4]), None]}
    )
    assert slice_sizes(table) == {"a": (3.0, pytest.approx(0.2))}


def scored(scheme: str, **columns: list[float]) -> pd.DataFrame:
    names = ["dice", "dice_where_present", "dice_prompted", "over_propagation", "volume_error"]
    count = len(next(iter(columns.values())))
    values = {name: columns.get(name, [NAN] * count) for name in names}
    named = {"model": "m", "scheme": scheme, "structure": "femur", "status": "ok"}
    return pd.DataFrame({"volume": [f"v{index}" for index in range(count)], **values}).assign(**named)


def test_propagation() -> None:
    video = scored(
        "video",
        dice=[0.5, 0.6, 0.9, NAN],
        dice_where_present=[0.7, 0.8, 0.9, NAN],
        dice_prompted=[0.95, 0.85, 0.9, NAN],
        over_propagation=[0.4, 0.0, 0.1, NAN],
        volume_error=[-0.2, 0.3, 0.1, NAN],
    ).assign(status=["ok", "ok", "ok", "failed"])
    box = scored("box", dice=[0.8, 0.9], dice_where_present=[0.8, 0.9], over_propagation=[0.0, 0.0])
    table = propagation(pd.concat([video, box]), ["femur"], ["box", "point"]).set_index(["scheme", "structure"])
    assert list(table.index) == [("video", "femur"), ("video", "combined"), ("box", "femur"), ("box", "combined")]
    assert table.loc["video", "femur"].to_dict() == {
        "model": "m",
        "n": 3,
        "dice": 0.6,
        "dice_where_present": 0.8,
        "dice_prompted": 0.9,
        "over_propagation": 0.1,
        "over_propagation_worst": 0.4,
        "volume_error": 0.1,
        "knows_extent": False,
    }
    known = table.loc["box", "femur"]
    assert (known["n"], known["knows_extent"], known["dice"]) == (2, True, pytest.approx(0.85))
    assert math.isnan(known["dice_prompted"])
    assert table.loc["box", "combined"]["n"] == 0
