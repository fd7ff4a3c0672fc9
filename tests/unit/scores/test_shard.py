"""The tables of a shard, with volumes that cannot be scored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from volprompt.columns import SCORE_COLUMNS
from volprompt.files import join_tables, table_metadata
from volprompt.identity import write_identity
from volprompt.scores.rounds import ROUND_COLUMNS, score_rounds
from volprompt.scores.scores import Reference, score_volume
from volprompt.scores.shard import SLICE_COLUMNS, _statuses, mean_confidence, score_masks, score_shard
from volprompt.segmentation.masks import mask_path, read_rounds, rounds_path, write_mask, write_rounds
from volprompt.segmentation.runs import CLICK_COLUMNS, CONFIDENCE_COLUMNS, confidence_rows
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import grid_of_row, read_volume_table

BONES = {"femur": [1], "tibia": [3]}


def by_structure(table: pd.DataFrame, column: str) -> dict[str, float]:
    return table.set_index("structure")[column].to_dict()


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


# A shard: `whole` has masks and reference, `bare` no reference, `broken` could not be converted, `lost` has no masks
# under one of two schemes.


def write_run(masks: Path, runs: pd.DataFrame) -> None:
    """The tables of a job: no corrections, and of the femur of `whole` under `point` some confidence."""
    runs.to_parquet(masks / "run.parquet")
    join_tables([], CLICK_COLUMNS).to_parquet(masks / "corrections.parquet")
    nan = float("nan")
    sure = confidence_rows(np.array([0.9, 0.5], np.float32), np.array([4.0, nan], np.float32))
    sure = sure.assign(volume="whole", scheme="point", structure="femur")
    join_tables([sure], CONFIDENCE_COLUMNS).to_parquet(masks / "confidence.parquet")


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
            runs.append({**run, "prompts_of": "{}", "absent": "[]", "no_prompt": "{}"})
            if not failed:
                for name, mask in (("femur", femur), ("tibia", tibia)):
                    write_mask(mask, grid_of_row(row), mask_path(masks, scheme, row.volume, name))
    write_run(masks, pd.DataFrame(runs))
    write_identity(masks, {}, {})
    score_shard(
        volumes=tmp_path / "volumes",
        masks=masks,
        experiment="e",
        model="m",
        schemes={"point": False, "box": True},
        labels=BONES,
        tolerance_mm=1.0,
        scores=tmp_path / "scores.parquet",
        slices=tmp_path / "slices.parquet",
        rounds=tmp_path / "rounds.parquet",
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
        "tolerance_mm",
        "predicted_iou",
        "object_score",
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
    assert metadata["border"] == "count"
    assert set(scores["tolerance_mm"]) == {1.0}
    assert metadata["surface_areas"].startswith("surface-distance ")


def test_ignored_labels_of_a_shard(shard: Path) -> None:
    """The mask named tibia lies on label 3 alone, which here is ignored and belongs to no structure."""
    rows = [{"volume": "whole", "image": str(shard / "image.nii"), "reference": str(shard / "labels.nii")}]
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard(rows, frames, {"tibia": [1]}, shard / "ignoring", ignored=[3])
    assert read_volume_table(shard / "ignoring").loc[0, "warnings"].tolist() == []
    pixels = {}
    for ignored in ([], [3]):
        _, slices, _ = score_masks(
            shard / "ignoring", shard / "masks", ("e", "m"), {"point": True}, {"tibia": [1]}, 1.0, ignored
        )
        pixels[bool(ignored)] = slices["predicted"].tolist()
    assert pixels == {False: [0, 2], True: [0, 0]}


def test_a_structure_without_a_prompt_costs_only_its_own_scores(shard: Path) -> None:
    runs = pd.read_parquet(shard / "masks" / "run.parquet")
    runs["no_prompt"] = '{"tibia": "slice 0 has no point (centroid) for tibia"}'
    runs["prompted_slices"] = '{"femur": [0]}'
    runs.to_parquet(shard / "masks" / "run.parquet")
    table, *_ = score_masks(
        shard / "volumes", shard / "masks", ("e", "m"), {"point": False}, BONES, 1.0, only=["whole"]
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


def test_tolerances_and_border_of_a_shard(shard: Path) -> None:
    """Both are in the tables' metadata, and reach the scores; the femur's reference lies in a corner of the volume."""
    tables = [shard / f"{name}.parquet" for name in ("other", "other_slices", "other_rounds")]
    score_shard(
        volumes=shard / "volumes",
        masks=shard / "masks",
        experiment="e",
        model="m",
        schemes={"box": "image"},
        labels=BONES,
        tolerance_mm={"tibia": 0.5, "femur": 2.5},
        scores=tables[0],
        slices=tables[1],
        rounds=tables[2],
        border="ignore",
    )
    for table in tables:
        metadata = table_metadata(table)
        assert metadata["surface_tolerance_mm"] == '{"femur": 2.5, "tibia": 0.5}'
        assert metadata["border"] == "ignore"
    found = pd.read_parquet(tables[0]).query("volume == 'whole'").set_index("structure")
    assert found["tolerance_mm"].loc[["femur", "tibia", "union"]].tolist() == [2.5, 0.5, 0.5]
    assert found["tolerance_mm"].loc[["combined", "mean"]].isna().all()
    before = pd.read_parquet(shard / "scores.parquet").query("volume == 'whole' and scheme == 'box'")
    assert found.loc["femur", "assd_mm"] != pytest.approx(before.set_index("structure").loc["femur", "assd_mm"])
    assert found["dice"].tolist() == before["dice"].tolist()


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
        "predicted_iou",
        "object_score",
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
    write_run(tmp_path / "masks", pd.DataFrame([], columns=["volume", "scheme", "status"]))
    write_identity(tmp_path / "masks", {}, {})
    score_shard(
        volumes=tmp_path / "volumes",
        masks=tmp_path / "masks",
        experiment="e",
        model="m",
        schemes={"point": True},
        labels=BONES,
        tolerance_mm=1.0,
        scores=tmp_path / "scores.parquet",
        slices=tmp_path / "slices.parquet",
        rounds=tmp_path / "rounds.parquet",
    )
    scores, slices = pd.read_parquet(tmp_path / "scores.parquet"), pd.read_parquet(tmp_path / "slices.parquet")
    assert scores["status"].tolist() == ["failed"] * 5
    assert len(slices) == 0
    assert list(scores.columns) == list(SCORE_COLUMNS)
    assert list(slices.columns) == list(SLICE_COLUMNS)
    for name, kind in SCORE_COLUMNS.items():
        assert scores[name].dtype == kind


# Confidence and rounds


def test_confidence_of_slices_and_volumes(shard: Path) -> None:
    """The femur's mask has voxels on both slices; the tibia's decoder said nothing that was kept."""
    slices = pd.read_parquet(shard / "slices.parquet").set_index(["volume", "scheme", "structure", "slice"])
    assert slices.loc[("whole", "point", "femur", 0), "predicted_iou"] == pytest.approx(0.9)
    assert slices.loc[("whole", "point", "femur", 1), "predicted_iou"] == 0.5
    assert math.isnan(slices.loc[("whole", "box", "femur", 1), "predicted_iou"])
    scores = pd.read_parquet(shard / "scores.parquet").set_index(["volume", "scheme", "structure"])
    for name in ("femur", "combined"):
        found = scores.loc[("whole", "point", name)]
        assert (found["predicted_iou"], found["object_score"]) == (pytest.approx(0.7), 4.0)


def test_confidence_counts_slices_with_voxels() -> None:
    sure = confidence_rows(np.array([0.2, 0.9, 0.7], np.float32), np.array([-9.0, 5.0, 3.0], np.float32))
    sure = sure.assign(structure="femur")
    mask = np.zeros((3, 2, 2), bool)
    mask[1:, 0, 0] = True
    for given, expected in ((mask, (0.8, 4.0)), (np.zeros_like(mask), (0.6, -1 / 3))):
        found = mean_confidence(sure, {"femur": given}).set_index("structure").loc["femur"]
        assert found.tolist() == pytest.approx(expected)


def test_rounds_by_hand(tmp_path: Path) -> None:
    """Femur: two of four pixels, then all; tibia: right from the start, so that nobody clicks on it."""
    masks = tmp_path / "masks"
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine), tmp_path / "image.nii")
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0], labels[1, 2, :2] = 1, 3
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii")
    row = {"volume": "knee", "image": str(tmp_path / "image.nii"), "reference": str(tmp_path / "labels.nii")}
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard([row], frames, BONES, tmp_path / "volumes")
    (converted,) = read_volume_table(tmp_path / "volumes").itertuples()
    grid = grid_of_row(converted)
    truth = {name: grid.to_frames(labels == number) for name, number in (("femur", 1), ("tibia", 3))}
    first = truth["femur"].copy()
    first[np.nonzero(first)[0][:2], np.nonzero(first)[1][:2], np.nonzero(first)[2][:2]] = False
    rounds = {"femur": np.stack([first, truth["femur"]]), "tibia": truth["tibia"][None]}
    for name, of_structure in rounds.items():
        path = rounds_path(masks, "corrected", "knee", name)
        write_rounds(np.packbits(of_structure, axis=-1), grid, path)
        assert (read_rounds(path, grid) == of_structure).all()
    run = SimpleNamespace(volume="knee", scheme="corrected", prompts_of='{"femur": 1, "tibia": 1}')
    click = {"volume": "knee", "scheme": "corrected", "structure": "femur", "slice": 0, "x": 1, "y": 1, "label": 1}
    clicks = join_tables([pd.DataFrame([{**click, "round": 1}])], CLICK_COLUMNS)
    found = score_rounds(masks, run, clicks, grid, Reference(truth, grid.spacing), ["femur", "tibia"], 1.0)
    assert found[["structure", "round", "prompts"]].values.tolist() == [
        ["femur", 0, 1],
        ["tibia", 0, 1],
        ["combined", 0, 2],
        ["femur", 1, 2],
        ["tibia", 1, 1],
        ["combined", 1, 3],
    ]
    # 2 of 4 femur voxels: 2 * 2 / 6. With the tibia's 2: 2 * 4 / 10.
    assert found["dice"].tolist() == pytest.approx([2 / 3, 1, 0.8, 1, 1, 1])
    assert found["nsd"].iloc[3:].tolist() == [1, 1, 1]
    reference, tolerances = Reference(truth, grid.spacing), {"femur": 0.4, "tibia": 2.0}
    each = score_rounds(masks, run, clicks, grid, reference, ["femur", "tibia"], tolerances).query("round == 0")
    of_masks, _ = score_volume({"femur": first, "tibia": truth["tibia"]}, reference, tolerances)
    assert each["nsd"].tolist() == pytest.approx(of_masks["nsd"].tolist()[:3])
    assert each["nsd"].iloc[0] < found["nsd"].iloc[0]
    alone = score_rounds(masks, run, clicks, grid, Reference(truth, grid.spacing), ["femur"], 1.0)
    assert set(alone["structure"]) == {"femur"}  # the tibia could not be prompted: no score over all


@pytest.mark.parametrize(
    ("count", "kind"), [(1, np.uint8), (8, np.uint8), (9, np.uint16), (17, np.uint32), (32, np.uint32)]
)
def test_rounds_are_bits_of_one_image(shard: Path, tmp_path: Path, count: int, kind: type) -> None:
    row = next(row for row in read_volume_table(shard / "volumes").itertuples() if row.volume == "whole")
    rounds = np.random.default_rng(count).random((count, *grid_of_row(row).frames_shape)) > 0.5
    write_rounds(np.packbits(rounds, axis=-1), grid_of_row(row), tmp_path / "rounds.nii.gz")
    assert nib.load(tmp_path / "rounds.nii.gz").get_data_dtype() == kind
    assert (read_rounds(tmp_path / "rounds.nii.gz", grid_of_row(row)) == rounds).all()


def test_a_shard_without_corrections_has_no_rounds(shard: Path) -> None:
    table = pd.read_parquet(shard / "rounds.parquet")
    assert list(table.columns) == list(ROUND_COLUMNS)
    assert len(table) == 0
