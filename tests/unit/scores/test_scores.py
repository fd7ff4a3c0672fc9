"""Scores worked out by hand, and the tables of a shard with volumes that cannot be scored."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from volprompt.scores.scores import Reference, dice, overlap, score_volume, slice_counts
from volprompt.scores.tolerance import tolerance_text


def line(*pixels: int, length: int = 8) -> np.ndarray:
    """A mask of one slice of one row, with these pixels set."""
    mask = np.zeros((1, 1, length), dtype=bool)
    mask[0, 0, list(pixels)] = True
    return mask


def scored(
    predicted: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    prompted: dict[str, list[int]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return score_volume(predicted, Reference(reference, spacing), 1.0, prompted)


def by_structure(table: pd.DataFrame, column: str) -> dict[str, float]:
    return table.set_index("structure")[column].to_dict()


@pytest.mark.parametrize(
    ("intersection", "predicted", "reference", "expected"),
    [(2, 4, 4, 0.5), (3, 3, 3, 1.0), (0, 4, 4, 0.0), (0, 0, 4, 0.0), (0, 4, 0, 0.0), (1, 2, 6, 0.25)],
)
def test_dice(intersection: int, predicted: int, reference: int, expected: float) -> None:
    assert dice(intersection, predicted, reference) == expected


def test_dice_of_two_empty_masks_is_undefined() -> None:
    assert math.isnan(dice(0, 0, 0))


def test_pixels_of_slices() -> None:
    predicted, reference = np.zeros((2, 3, 2, 2), dtype=bool)
    predicted[0, 0, 0] = predicted[1] = True
    predicted[0, 0, 1] = True
    reference[1, 0, :] = reference[2, 1, 1] = True
    counts = slice_counts(predicted, reference)
    assert counts[["slice", "intersection", "predicted", "reference"]].values.tolist() == [
        [0, 0, 2, 0],
        [1, 2, 4, 2],
        [2, 0, 0, 1],
    ]


def test_combined_union_and_mean_differ() -> None:
    # Femur: pixels 0-3 in truth and 2-5 predicted, 2 in common: 2 * 2 / (4 + 4) = 0.5. Tibia: 4 and 5 in both: 1.
    reference = {"femur": line(0, 1, 2, 3), "tibia": line(4, 5)}
    predicted = {"femur": line(2, 3, 4, 5), "tibia": line(4, 5)}
    table, _ = scored(predicted, reference)
    assert by_structure(table, "dice") == {
        "femur": 0.5,
        "tibia": 1.0,
        "combined": pytest.approx(2 * (2 + 2) / (4 + 4 + 2 + 2)),  # each voxel for its own structure: 8 / 12
        "union": pytest.approx(2 * 4 / (4 + 6)),  # pixels 2-5 against 0-5: 8 / 10
        "mean": 0.75,
    }


def test_volumes_in_cubic_millimetres() -> None:
    reference = {"femur": line(0, 1, 2, 3), "tibia": line(4, 5)}
    predicted = {"femur": line(2, 3, 4, 5, 6), "tibia": line(4)}
    table, _ = scored(predicted, reference, (0.5, 2.0, 3.0))  # 3 mm3 a voxel
    predicted_mm3, reference_mm3 = by_structure(table, "volume_mm3"), by_structure(table, "reference_mm3")
    assert (predicted_mm3["femur"], predicted_mm3["tibia"], predicted_mm3["combined"]) == (15, 3, 18)
    assert (reference_mm3["femur"], reference_mm3["tibia"], reference_mm3["combined"]) == (12, 6, 18)
    assert predicted_mm3["union"] == 15  # pixel 4 counts once


def test_empty_masks() -> None:
    nothing, something = line(), line(1, 2)
    table, _ = scored(
        {"both": nothing, "missed": nothing, "invented": something, "found": something},
        {"both": nothing, "missed": something, "invented": nothing, "found": something},
    )
    scores = by_structure(table, "dice")
    assert by_structure(table, "nsd") == pytest.approx(scores, nan_ok=True)  # equal masks or none: the same table
    for name in ("hd95_mm", "assd_mm"):
        millimetres = by_structure(table, name)
        assert math.isnan(millimetres["both"])
        assert (millimetres["missed"], millimetres["invented"], millimetres["found"]) == (math.inf, math.inf, 0)
    errors = by_structure(table, "volume_error")
    assert math.isnan(errors["both"])
    assert math.isnan(errors["invented"])
    assert (errors["missed"], errors["found"]) == (-1, 0)
    assert math.isnan(scores["both"])
    assert (scores["missed"], scores["invented"], scores["found"]) == (0, 0, 1)
    assert scores["mean"] == pytest.approx(1 / 3)  # of the three that are defined
    assert scores["combined"] == pytest.approx(0.5)  # 2 * 2 / (4 + 4)
    assert math.isnan(by_structure(table, "over_propagation")["invented"])


def test_nothing_at_all_is_undefined() -> None:
    table, _ = scored({"femur": line()}, {"femur": line()})
    assert table["dice"].isna().all()
    assert set(table["structure"]) == {"femur", "combined", "union", "mean"}


def test_over_propagation() -> None:
    # The reference has 4 voxels on slice 1. Predicted: 1 voxel on slice 0, 3 on slice 1, 2 on slice 2.
    counts = pd.DataFrame({"intersection": [0, 2, 0], "predicted": [1, 3, 2], "reference": [0, 4, 0]})
    scores = overlap(counts.assign(distance=pd.array([-1, 0, 1], dtype="Int32")), 1.0)
    assert scores["over_propagation"] == (1 + 2) / 4
    assert scores["dice"] == 2 * 2 / (6 + 4)
    assert scores["dice_where_present"] == scores["dice_prompted"] == 2 * 2 / (3 + 4)
    assert scores["volume_error"] == 6 / 4 - 1


def test_distance_to_the_prompted_slices() -> None:
    mask = np.ones((6, 1, 2), dtype=bool)
    assert slice_counts(mask, mask, [2])["distance"].tolist() == [-2, -1, 0, 1, 2, 3]
    assert slice_counts(mask, mask, [1, 4])["distance"].tolist() == [-1, 0, 1, -1, 0, 1]
    assert slice_counts(mask, mask)["distance"].isna().all()


def test_each_structure_has_its_prompted_slice() -> None:
    """Femur prompted on slice 0 (2 of 2 and 4 pixels right), tibia on slice 1 (nothing right of 4 and 4)."""
    femur, tibia, others = np.zeros((3, 2, 1, 8), dtype=bool)
    femur[0, 0, :4] = True
    tibia[1, 0, :4] = True
    others[1, 0, 4:] = True
    found = femur.copy()
    found[0, 0, 2:] = False
    prompted = {"femur": [0], "tibia": [1]}
    table, slices = scored({"femur": found, "tibia": others}, {"femur": femur, "tibia": tibia}, prompted=prompted)
    on_prompted = by_structure(table, "dice_prompted")
    assert on_prompted["femur"] == pytest.approx(2 * 2 / (2 + 4))
    assert on_prompted["tibia"] == 0
    assert on_prompted["combined"] == pytest.approx(2 * 2 / (6 + 8))
    assert math.isnan(on_prompted["union"])
    assert slices["distance"].tolist() == [0, 1, -1, 0]
    without, _ = scored({"femur": found, "tibia": others}, {"femur": femur, "tibia": tibia})
    assert without["dice_prompted"].isna().all()


def test_slice_table_of_a_volume() -> None:
    reference = {"femur": line(0, 1, 2, 3), "tibia": line(4, 5)}
    predicted = {"femur": line(2, 3, 4, 5), "tibia": line()}
    _, slices = scored(predicted, reference)
    assert slices[["structure", "slice", "intersection", "predicted", "reference"]].values.tolist() == [
        ["femur", 0, 2, 4, 4],
        ["tibia", 0, 0, 0, 2],
    ]


def test_ignored_voxels_count_nowhere() -> None:
    """Predicted voxels there are no error, and lacking ones none either: by hand 2 x 2 / (3 + 2) outside of them."""
    femur, ignored = line(1, 2), line(4, 5, 6, 7)
    table, slices = score_volume(
        {"femur": line(1, 2, 3, 4, 5)}, Reference({"femur": femur}, (1.0, 1.0, 1.0), ignored), 1.0
    )
    assert set(table["dice"]) == {0.8}
    assert slices[["intersection", "predicted", "reference"]].values.tolist() == [[2, 3, 2]]
    assert by_structure(table, "volume_mm3")["femur"] == 3


@pytest.mark.parametrize("predicted", [line(1, 2, 3), line(1, 2, 3, 4, 6)])
def test_a_perfect_mask_beside_ignored_voxels(predicted: np.ndarray) -> None:
    reference = Reference({"femur": line(1, 2, 3)}, (1.0, 1.0, 1.0), line(4, 5, 6, 7))
    table, _ = score_volume({"femur": predicted}, reference, 1.0)
    assert table[["dice", "nsd", "hd95_mm", "assd_mm"]].drop_duplicates().values.tolist() == [[1, 1, 0, 0]]


def test_scores_over_all_need_all() -> None:
    """Over the femur alone `combined` would be the femur's, and comparable with nobody's."""
    reference = Reference({"femur": line(0, 1), "tibia": line(4, 5)}, (1.0, 1.0, 1.0))
    table, slices = score_volume({"femur": line(0, 1)}, reference, 1.0)
    assert table["structure"].tolist() == ["femur"]
    assert set(slices["structure"]) == {"femur"}


def test_tolerance_of_each_structure() -> None:
    """A femur of one voxel and a tibia of two that lie apart, each moved by 3: half of an area is 2 mm off, half 3."""
    predicted, reference = ({name: np.zeros((13, 3, 8), bool) for name in ("femur", "tibia")} for _ in range(2))
    for masks, x in ((predicted, 1), (reference, 4)):
        masks["femur"][0, 1, x] = True
        masks["tibia"][[6, 12], 1, x] = True
    table, _ = score_volume(predicted, Reference(reference, (1.0, 1.0, 1.0)), {"femur": 3.0, "tibia": 2.0})
    # All of the femur and half of the tibia, which has twice the area; the union is measured at 2 mm.
    expected = {"femur": 1, "tibia": 0.5, "combined": (1 + 0.5 * 2) / 3, "union": 0.5, "mean": 0.75}
    assert by_structure(table, "nsd") == pytest.approx(expected)
    tolerances = {"femur": 3, "tibia": 2, "combined": math.nan, "union": 2, "mean": math.nan}
    assert by_structure(table, "tolerance_mm") == pytest.approx(tolerances, nan_ok=True)
    assert tolerance_text(table) == "at 3 mm (femur) and 2 mm (tibia)"
    same, _ = score_volume(predicted, Reference(reference, (1.0, 1.0, 1.0)), {"femur": 2.0, "tibia": 2.0})
    assert by_structure(same, "tolerance_mm") == dict.fromkeys(expected, 2)
    assert tolerance_text(same) == "at 2 mm"
    pd.testing.assert_frame_equal(same, score_volume(predicted, Reference(reference, (1.0, 1.0, 1.0)), 2.0)[0])


def test_scores_without_the_border() -> None:
    """Slabs that fill the field of view, 2 and 4 slices thick."""
    predicted, reference = np.zeros((2, 6, 4, 4), bool)
    predicted[:2], reference[:4] = True, True
    rows = []
    for border in ("count", "ignore"):
        table, _ = score_volume(
            {"femur": predicted}, Reference({"femur": reference}, (1.0, 1.0, 1.0), None, border), 1.0
        )
        rows.append(table.set_index("structure").loc["femur"])
    counted, ignored = rows
    assert ignored[["nsd", "hd95_mm", "assd_mm"]].tolist() == [0, 2, 2]
    assert counted["nsd"] > 0.5
    assert ignored["dice"] == counted["dice"] == pytest.approx(2 * 32 / 96)


def test_tolerance_in_words() -> None:
    rows = [("femur", 1.0), ("tibia", 1.0), ("cartilage", 0.5), ("combined", math.nan), ("union", 0.5)]
    table = pd.DataFrame([*rows, *rows], columns=["structure", "tolerance_mm"])
    assert tolerance_text(table) == "at 1 mm (femur, tibia) and 0.5 mm (cartilage)"
    meniscus = pd.DataFrame({"structure": ["meniscus"], "tolerance_mm": [0.25]})
    assert tolerance_text(pd.concat([table, meniscus])).endswith("0.5 mm (cartilage) and 0.25 mm (meniscus)")
    assert tolerance_text(table.assign(tolerance_mm=math.nan)) == ""
