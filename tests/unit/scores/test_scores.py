"""Scores worked out by hand, and the tables of a shard with volumes that cannot be scored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from volprompt.files import table_metadata
from volprompt.identity import write_identity
from volprompt.scores.scores import (
    COLUMNS,
    SLICE_COLUMNS,
    Reference,
    _statuses,
    dice,
    overlap,
    score_masks,
    score_shard,
    score_volume,
    slice_counts,
)
from volprompt.segmentation.masks import mask_path, write_mask
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import grid_of_row, read_volume_table

BONES = {"femur": [1], "tibia": [3]}


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


@pytest.mark.parametrize(
    ("prompted", "absent", "no_prompt", "has_reference", "femur", "tibia", "together"),
    [
        (["femur", "tibia"], [], [], True, "ok", "ok", "ok"),
        (["femur"], ["tibia"], [], True, "ok", "absent", "ok"),
        ([], ["femur", "tibia"], [], True, "absent", "absent", "absent"),
        (["femur"], [], ["tibia"], True, "ok", "no_prompt", "no_prompt"),
        ([], ["femur"], ["tibia"], True, "absent", "no_prompt", "no_prompt"),
        (["tibia"], [], [], True, "left_out", "ok", "left_out"),
        (["tibia"], [], ["femur"], False, "no_prompt", "no_reference", "no_prompt"),
        (["femur", "tibia"], [], [], False, "no_reference", "no_reference", "no_reference"),
    ],
)
def test_what_became_of_structures(
    prompted: list[str],
    absent: list[str],
    no_prompt: list[str],
    has_reference: bool,
    femur: str,
    tibia: str,
    together: str,
) -> None:
    run = SimpleNamespace(
        prompted_slices=json.dumps({name: [0] for name in prompted}),
        absent=json.dumps(absent),
        no_prompt=json.dumps(dict.fromkeys(no_prompt, "no slice has one")),
    )
    found = _statuses(run, ["femur", "tibia"], has_reference)
    assert found == {"femur": femur, "tibia": tibia, "combined": together, "union": together, "mean": together}


def test_scores_over_all_need_all() -> None:
    """Over the femur alone `combined` would be the femur's, and comparable with nobody's."""
    reference = Reference({"femur": line(0, 1), "tibia": line(4, 5)}, (1.0, 1.0, 1.0))
    table, slices = score_volume({"femur": line(0, 1)}, reference, 1.0)
    assert table["structure"].tolist() == ["femur"]
    assert set(slices["structure"]) == {"femur"}


# A shard: `whole` has masks and reference, `bare` no reference, `broken` could not be converted, `lost` has no masks
# under one of two schemes.


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    # Stored along P, I, R with voxels of 1 x 1 x 2 mm; frames (slice, y, x) are 2 x 3 x 4.
    affine = np.array([[0, 0, 2, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    image = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    labels = np.zeros((4, 3, 2), dtype=np.uint8)
    labels[:2, :, 0] = 1  # femur: 6 voxels on slice 0
    labels[2:, 0, 1] = 3  # tibia: 2 voxels on slice 1
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "image.nii")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii")
    rows = [
        {
            "volume": name,
            "image": str(tmp_path / ("none.nii" if name == "broken" else "image.nii")),
            "reference": "" if name == "bare" else str(tmp_path / "labels.nii"),
        }
        for name in ("whole", "bare", "broken", "lost")
    ]
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard(rows, frames, BONES, tmp_path / "volumes")
    masks = tmp_path / "masks"
    femur, tibia = np.zeros((2, 2, 3, 4), dtype=bool)
    femur[0, :, 1:3] = True  # 6 voxels, of which 3 are in the reference (x 0 and 1)
    femur[1, 0, 0] = True  # 1 on a slice without femur
    tibia[1, 0, 2:] = True  # exactly the reference
    runs = []
    for row in read_volume_table(tmp_path / "volumes").itertuples():
        for scheme in ("point", "box"):
            failed = row.volume == "lost" and scheme == "box"
            if row.status != "ok":
                continue
            status, prompted = ("failed", None) if failed else ("ok", '{"femur": [0], "tibia": [1]}')
            run = {"volume": row.volume, "scheme": scheme, "status": status, "prompted_slices": prompted}
            runs.append({**run, "absent": "[]", "no_prompt": "{}"})
            if not failed:
                for name, mask in (("femur", femur), ("tibia", tibia)):
                    write_mask(mask, grid_of_row(row), mask_path(masks, scheme, row.volume, name))
    pd.DataFrame(runs).to_parquet(masks / "run.parquet")
    write_identity(masks, {}, {})
    score_shard(
        volumes=tmp_path / "volumes",
        masks=masks,
        experiment="e",
        model="m",
        schemes={"point": "video", "box": "image"},
        labels=BONES,
        tolerance_mm=1.0,
        scores=tmp_path / "scores.parquet",
        slices=tmp_path / "slices.parquet",
    )
    return tmp_path


def test_scores_of_a_shard(shard: Path) -> None:
    table = pd.read_parquet(shard / "scores.parquet")
    assert list(table.columns) == [
        "experiment",
        "model",
        "scheme",
        "volume",
        "structure",
        "dice",
        "nsd",
        "hd95_mm",
        "assd_mm",
        "volume_mm3",
        "reference_mm3",
        "volume_error",
        "over_propagation",
        "dice_where_present",
        "dice_prompted",
        "status",
    ]
    assert len(table) == 4 * 2 * 5  # volumes x schemes x (two structures, combined, union, mean)
    assert set(table["experiment"]) == {"e"}
    assert set(table["model"]) == {"m"}
    status = table.groupby(["volume", "scheme"])["status"].agg(lambda values: "".join(sorted(set(values))))
    assert status.to_dict() == {
        ("whole", "point"): "ok",
        ("whole", "box"): "ok",
        ("bare", "point"): "no_reference",
        ("bare", "box"): "no_reference",
        ("broken", "point"): "failed",
        ("broken", "box"): "failed",
        ("lost", "point"): "ok",
        ("lost", "box"): "failed",
    }
    assert table.loc[table["status"] != "ok", "dice"].isna().all()
    scores = table[(table["volume"] == "whole") & (table["scheme"] == "box")]
    # Femur: 3 of 7 and 6; tibia 2 of 2 and 2; together 2 * 5 / (9 + 8).
    dice_of = by_structure(scores, "dice")
    assert dice_of["femur"] == pytest.approx(6 / 13)
    assert dice_of["tibia"] == 1
    assert dice_of["combined"] == pytest.approx(10 / 17)
    assert by_structure(scores, "volume_mm3")["femur"] == pytest.approx(14)
    assert by_structure(scores, "over_propagation")["femur"] == pytest.approx(1 / 6)
    assert by_structure(scores, "dice_where_present")["femur"] == pytest.approx(6 / 12)
    assert by_structure(scores, "assd_mm")["tibia"] == 0
    assert scores["dice_prompted"].isna().all()  # an image scheme
    video = table[(table["volume"] == "whole") & (table["scheme"] == "point")]
    assert by_structure(video, "dice_prompted")["femur"] == pytest.approx(6 / 12)
    metadata = table_metadata(shard / "scores.parquet")
    assert metadata["surface_tolerance_mm"] == "1.0"
    assert metadata["surface_areas"].startswith("surface-distance ")


def test_ignored_labels_of_a_shard(shard: Path) -> None:
    """The mask named tibia lies on label 3 alone, which here is ignored and belongs to no structure."""
    rows = [{"volume": "whole", "image": str(shard / "image.nii"), "reference": str(shard / "labels.nii")}]
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard(rows, frames, {"tibia": [1]}, shard / "ignoring", ignored=[3])
    assert read_volume_table(shard / "ignoring").loc[0, "warnings"].tolist() == []
    pixels = {}
    for ignored in ([], [3]):
        _, slices = score_masks(
            shard / "ignoring", shard / "masks", ("e", "m"), {"point": "image"}, {"tibia": [1]}, 1.0, ignored
        )
        pixels[bool(ignored)] = slices["predicted"].tolist()
    assert pixels == {False: [0, 2], True: [0, 0]}


def test_a_structure_without_a_prompt_costs_only_its_own_scores(shard: Path) -> None:
    runs = pd.read_parquet(shard / "masks" / "run.parquet")
    runs["no_prompt"] = '{"tibia": "slice 0 has no point (centroid) for tibia"}'
    runs["prompted_slices"] = '{"femur": [0]}'
    runs.to_parquet(shard / "masks" / "run.parquet")
    table, _ = score_masks(
        shard / "volumes", shard / "masks", ("e", "m"), {"point": "video"}, BONES, 1.0, only=["whole"]
    )
    found = table.set_index("structure")
    assert found["status"].to_dict() == {
        "femur": "ok",
        "tibia": "no_prompt",
        "combined": "no_prompt",
        "union": "no_prompt",
        "mean": "no_prompt",
    }
    assert found["dice"].notna().to_dict() == {name: name == "femur" for name in found.index}


def test_slices_of_a_shard(shard: Path) -> None:
    table = pd.read_parquet(shard / "slices.parquet")
    assert list(table.columns) == [
        "experiment",
        "model",
        "scheme",
        "volume",
        "structure",
        "slice",
        "distance",
        "intersection",
        "predicted",
        "reference",
    ]
    assert set(zip(table["volume"], table["scheme"], strict=True)) == {
        ("whole", "point"),
        ("whole", "box"),
        ("lost", "point"),
    }
    femur = table[(table["volume"] == "whole") & (table["scheme"] == "point") & (table["structure"] == "femur")]
    columns = ["slice", "distance", "intersection", "predicted", "reference"]
    assert femur[columns].values.tolist() == [[0, 0, 3, 6, 6], [1, 1, 0, 1, 0]]
    image = table[(table["volume"] == "whole") & (table["scheme"] == "box")]
    assert image["distance"].isna().all()


def test_tables_of_a_shard_without_any_mask(tmp_path: Path) -> None:
    row = {"volume": "broken", "image": str(tmp_path / "none.nii"), "reference": ""}
    convert_shard([row], {"axis": "sagittal"}, BONES, tmp_path / "volumes")
    (tmp_path / "masks").mkdir()
    pd.DataFrame([], columns=["volume", "scheme", "status"]).to_parquet(tmp_path / "masks" / "run.parquet")
    write_identity(tmp_path / "masks", {}, {})
    score_shard(
        volumes=tmp_path / "volumes",
        masks=tmp_path / "masks",
        experiment="e",
        model="m",
        schemes={"point": "image"},
        labels=BONES,
        tolerance_mm=1.0,
        scores=tmp_path / "scores.parquet",
        slices=tmp_path / "slices.parquet",
    )
    scores, slices = pd.read_parquet(tmp_path / "scores.parquet"), pd.read_parquet(tmp_path / "slices.parquet")
    assert scores["status"].tolist() == ["failed"] * 5
    assert len(slices) == 0
    assert list(scores.columns) == list(COLUMNS)
    assert list(slices.columns) == list(SLICE_COLUMNS)
    for name, kind in COLUMNS.items():
        assert scores[name].dtype == kind
