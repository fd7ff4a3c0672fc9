"""Prompts from masks and clicks, worked out by hand, and the table they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from volprompt.files import table_metadata
from volprompt.prompts.candidates import (
    PromptError,
    bounding_box,
    centroid,
    click_prompts,
    extract_shard,
    interior_point,
    read_prompts,
    skeleton_point,
    spread_points,
    structure_prompts,
    volume_prompts,
)
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_volume_table

BONES = {"femur": [1], "tibia": [3]}
SHAPE = (4, 6, 8)


def drawn(*lines: str) -> np.ndarray:
    """A mask from lines of `#` (inside) and `.`."""
    return np.array([[letter == "#" for letter in line] for line in lines])


HORSESHOE = drawn(
    "#.#",
    "#.#",
    "###",
)


# Points and boxes of one slice


def test_centroid_of_a_rectangle() -> None:
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:4, 5:9] = True  # rows 2 and 3, columns 5 to 8
    assert centroid(mask) == (6.5, 2.5)


def test_centroid_of_a_concave_structure_lies_outside() -> None:
    # x: 0 + 2 + 0 + 2 + 0 + 1 + 2 = 7, y: 0 + 0 + 1 + 1 + 2 + 2 + 2 = 8, over 7 pixels.
    x, y = centroid(HORSESHOE)
    assert (x, y) == (1.0, pytest.approx(8 / 7))
    assert not HORSESHOE[round(y), round(x)]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.3, 2.0), (2.0, 0.3)])
def test_interior_point_of_a_concave_structure_lies_inside(spacing: tuple[float, float]) -> None:
    rows, columns = np.ogrid[:41, :41]
    radius = np.hypot(rows - 20, columns - 20)
    ring = (radius > 8) & (radius < 15) & ~((rows < 20) & (abs(columns - 20) < 5))  # a horseshoe
    for mask in (HORSESHOE, ring):
        assert not mask[tuple(round(value) for value in centroid(mask))[::-1]]
        x, y = interior_point(mask, spacing)
        assert (x, y) == (int(x), int(y))
        assert mask[int(y), int(x)]


def test_interior_point_is_the_deepest_pixel() -> None:
    # A square of 5 x 5 with a long tail: the square's centre is 3 pixels from the next outside, the tail's pixels 1.
    mask = np.zeros((9, 20), dtype=bool)
    mask[2:7, 1:6] = True
    mask[4, 6:19] = True
    assert interior_point(mask) == (3.0, 4.0)


def test_interior_point_counts_the_frames_border_as_outside() -> None:
    assert interior_point(np.ones((3, 5), dtype=bool)) == (2.0, 1.0)


def test_interior_point_of_equals_is_next_to_the_centroid_then_first() -> None:
    # All four pixels are equally deep; the centroid is x = 1.5, between the pixels 1 and 2.
    assert interior_point(np.ones((1, 4), dtype=bool)) == (1.0, 0.0)


def test_distance_of_equals_to_the_centroid_is_in_millimetres() -> None:
    # Three single pixels (0, 0), (6, 0) and (3, 3) are equally deep; their centroid is (3, 1). In pixels (3, 3) is
    # nearest, 2 away. With pixels 3 mm high it is 6 mm away, and (0, 0) hypot(3, 3) = 4.2 mm.
    mask = drawn("#.....#", ".......", ".......", "...#...")
    assert interior_point(mask) == (3.0, 3.0)
    assert interior_point(mask, (3.0, 1.0)) == (0.0, 0.0)


def test_interior_point_measures_in_millimetres() -> None:
    # A: 3 rows x 11 columns around (x 7, y 2). B: 5 x 5 around (x 3, y 10).
    # In pixels A's centre is 2 from the outside and B's 3. With pixels 3 mm high and 1 mm wide A's centre is 6 mm away
    # from above, below, left and right, and B's still 3 mm from left and right.
    mask = np.zeros((16, 16), dtype=bool)
    mask[1:4, 2:13] = True
    mask[8:13, 1:6] = True
    assert interior_point(mask, (1.0, 1.0)) == (3.0, 10.0)
    assert interior_point(mask, (3.0, 1.0)) == (7.0, 2.0)


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [((2, 5), (3, 8), (3, 2, 7, 4)), ((4, 5), (6, 7), (6, 4, 6, 4)), ((0, 6), (0, 9), (0, 0, 8, 5))],
)
def test_box_is_tight_and_inclusive(
    rows: tuple[int, int], columns: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    assert bounding_box(mask) == box


def test_skeleton_point_of_a_bent_structure() -> None:
    """A quarter of a ring, as cartilage is: the centroid lies outside, the skeleton's nearest point half way along."""
    y, x = np.mgrid[:40, :40]
    radius = np.hypot(y, x)
    mask = (radius > 29) & (radius < 34)
    assert not mask[tuple(round(each) for each in centroid(mask)[::-1])]
    point_x, point_y = skeleton_point(mask)
    assert abs(point_x - point_y) <= 2
    assert 30 <= np.hypot(point_x, point_y) <= 33


def test_points_are_spread_by_hand() -> None:
    """A bar of 1 x 21 pixels of 1 x 3 mm: from its middle the ends are farthest, then the quarters."""
    mask = np.zeros((3, 25), bool)
    mask[1, 2:23] = True
    middle = np.array([[12.0, 1.0]])
    assert spread_points(mask, middle, 4, (1.0, 3.0)) == [(2.0, 1.0), (22.0, 1.0), (7.0, 1.0), (17.0, 1.0)]
    assert spread_points(mask, middle, 0, (1.0, 3.0)) == []
    assert len(spread_points(mask, middle, 50, (1.0, 3.0))) == 20  # every other pixel, and no more


def test_spread_points_are_no_points_on_the_edge() -> None:
    mask = np.zeros((20, 40), bool)
    mask[5:15, 5:35] = True  # up to 5 pixels deep: only what is at least 2.5 deep is taken
    points = spread_points(mask, np.array([interior_point(mask)]), 5, (1.0, 1.0))
    assert all(7 <= x <= 32 and 7 <= y <= 12 for x, y in points)
    assert points[0][0] in (7.0, 32.0)


# All slices of a structure


def test_rows_of_a_structure() -> None:
    mask = np.zeros((5, 10, 12), dtype=bool)
    mask[1, 4:7, 2:5] = HORSESHOE
    mask[3, 9, 11] = True
    rows = structure_prompts(mask, (1.0, 1.0))
    # Interior of the horseshoe: its seven pixels are all one pixel deep, (1, 2) is the nearest to the centroid.
    first, second = {"slice": 1, "area": 7}, {"slice": 3, "area": 1}
    assert rows == [
        {**first, "kind": "point", "origin": "centroid", "x": 3.0, "y": pytest.approx(4 + 8 / 7)},
        {**first, "kind": "point", "origin": "interior", "x": 3.0, "y": 6.0},
        {**first, "kind": "point", "origin": "skeleton", "x": 3.0, "y": 6.0},
        {**first, "kind": "box", "origin": "bounding_box", "x": 2, "y": 4, "x2": 4, "y2": 6},
        {**second, "kind": "point", "origin": "centroid", "x": 11.0, "y": 9.0},
        {**second, "kind": "point", "origin": "interior", "x": 11.0, "y": 9.0},
        {**second, "kind": "point", "origin": "skeleton", "x": 11.0, "y": 9.0},
        {**second, "kind": "box", "origin": "bounding_box", "x": 11, "y": 9, "x2": 11, "y2": 9},
    ]


def test_spacing_reaches_the_interior_points() -> None:
    mask = np.zeros((1, 16, 16), dtype=bool)
    mask[0, 1:4, 2:13] = True
    mask[0, 8:13, 1:6] = True
    _, interior, _, _ = structure_prompts(mask, (3.0, 1.0))
    assert (interior["x"], interior["y"]) == (7.0, 2.0)


def test_an_empty_structure_has_no_rows() -> None:
    assert structure_prompts(np.zeros((5, 10, 12), dtype=bool), (1.0, 1.0)) == []


def test_number_of_rows_is_bounded() -> None:
    reference = np.ones((160, 4, 4), dtype=np.uint8)
    table = volume_prompts(reference, BONES, [], reference.shape, (1.0, 1.0))
    assert table.groupby(["structure", "kind"]).size().to_dict() == {("femur", "point"): 480, ("femur", "box"): 160}


# Clicks


def click(structure: str = "femur", slice: int = 1, x: float = 3.5, y: float = 2.5) -> dict:
    return {"structure": structure, "slice": slice, "x": x, "y": y}


@pytest.mark.parametrize(
    "given", [click(slice=0), click(slice=3), click(x=-0.5, y=-0.5), click(x=7.5, y=5.5), click(x=0, y=5)]
)
def test_clicks_inside(given: dict) -> None:
    (row,) = click_prompts([given], SHAPE, {})
    assert {key: row[key] for key in given} == given
    assert (row["kind"], row["origin"], row["area"]) == ("point", "click", None)


@pytest.mark.parametrize(
    "given",
    [
        click(slice=-1),
        click(slice=4),
        click(x=-0.6),
        click(x=7.6),
        click(y=-0.6),
        click(y=5.6),
        click(x=5.6, y=7),  # x and y exchanged
        click(x=float("nan")),
    ],
)
def test_clicks_outside(given: dict) -> None:
    with pytest.raises(PromptError) as caught:
        click_prompts([click(), given], SHAPE, {})
    message = str(caught.value)
    assert f"click on 'femur' at slice {given['slice']}, x {given['x']:g}, y {given['y']:g}" in message
    assert "4 slices of 8 x 6 pixels" in message


def test_a_click_stands_beside_the_points_of_the_reference() -> None:
    reference = np.zeros(SHAPE, dtype=np.uint8)
    reference[1, 1:3, 2:6] = 1  # 8 pixels around x 3.5, y 1.5
    clicks = [click(x=5, y=2), click("tibia"), click(slice=2)]
    table = volume_prompts(reference, BONES, clicks, SHAPE, (1.0, 1.0))
    without = volume_prompts(reference, BONES, [], SHAPE, (1.0, 1.0))
    pd.testing.assert_frame_equal(table[table["origin"] != "click"], without)
    clicked = table[table["origin"] == "click"]
    assert clicked[["structure", "slice", "x", "y"]].values.tolist() == [
        ["femur", 1, 5.0, 2.0],
        ["tibia", 1, 3.5, 2.5],
        ["femur", 2, 3.5, 2.5],
    ]
    assert clicked["area"].tolist() == [8, pd.NA, pd.NA]
    assert without.loc[without["origin"] == "centroid", ["x", "y"]].values.tolist() == [[3.5, 1.5]]


def test_of_several_clicks_without_labels_the_last_one_counts() -> None:
    given = [click(x=1), click("tibia", x=2), click(x=3)]
    rows = click_prompts(given, SHAPE, {})
    assert [(row["structure"], row["x"], row["origin"]) for row in rows] == [
        ("femur", 3, "click"),
        ("tibia", 2, "click"),
    ]


def test_clicks_with_labels_count_all() -> None:
    given = [{**click(x=x), "label": label} for x, label in ((1, 1), (2, 0), (3, 1))]
    rows = click_prompts(given, SHAPE, {})
    assert [(row["x"], row["origin"]) for row in rows] == [(1, "click"), (2, "negative_click"), (3, "click")]


def test_clicks_without_reference() -> None:
    table = volume_prompts(None, BONES, [click()], SHAPE, (1.0, 1.0))
    assert table["origin"].tolist() == ["click"]


# The file


def shard(folder: Path, references: Mapping[str, np.ndarray | None]) -> Path:
    """A converted shard of volumes on axes R, A, S with voxels of 2 x 1 x 3 mm."""
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    rows = []
    for name, labels in references.items():
        shape = (4, 8, 6) if labels is None else labels.shape
        image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        nib.save(nib.Nifti1Image(image, affine), folder / f"{name}.nii")
        if labels is not None:
            nib.save(nib.Nifti1Image(labels, affine), folder / f"{name}_labels.nii")
        reference = "" if labels is None else str(folder / f"{name}_labels.nii")
        rows.append({"volume": name, "image": str(folder / f"{name}.nii"), "reference": reference})
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard(rows, frames, BONES, folder / "000")
    return folder / "000"


def labelled() -> np.ndarray:
    """Femur on slice 1: A 2 to 4, S 1 to 2. In frames of 8 columns and 6 rows: x 3 to 5, y 3 to 4."""
    labels = np.zeros((4, 8, 6), dtype=np.uint8)
    labels[1, 2:5, 1:3] = 1
    return labels


def extract(folder: Path, clicks: Sequence[Mapping]) -> pd.DataFrame:
    extract_shard(folder, BONES, clicks, folder.parent / "prompts.parquet")
    return read_prompts(folder.parent / "prompts.parquet")


def test_prompts_of_a_shard(tmp_path: Path) -> None:
    folder = shard(tmp_path, {"a": labelled(), "b": None, "c": labelled()})
    table = extract(folder, [{"volume": "b", **click(x=4, y=1)}])
    assert table.groupby("volume").size().to_dict() == {"a": 4, "b": 1, "c": 4}
    box = table[(table["volume"] == "a") & (table["kind"] == "box")].iloc[0]
    assert box[["structure", "slice", "x", "y", "x2", "y2", "area"]].tolist() == ["femur", 1, 3, 3, 5, 4, 6]
    points = table[table["kind"] == "point"]
    assert points[["x2", "y2"]].isna().all(axis=None)


def test_interior_points_of_a_shard_are_measured_on_its_grid(tmp_path: Path) -> None:
    # The slice of `test_interior_point_measures_in_millimetres`: pixels are 3 mm high (S) and 1 mm wide (A).
    frame = np.zeros((16, 16), dtype=np.uint8)
    frame[1:4, 2:13] = 1
    frame[8:13, 1:6] = 1
    table = extract(shard(tmp_path, {"a": frame.T[::-1, ::-1][None]}), [])
    interior = table[table["origin"] == "interior"]
    assert interior[["x", "y"]].values.tolist() == [[7, 2]]


def test_types_of_the_columns(tmp_path: Path) -> None:
    folder = shard(tmp_path, {"a": labelled()})
    for clicks in ([], [{"volume": "a", **click(slice=0)}]):
        extract(folder, clicks)
        schema = pq.read_schema(tmp_path / "prompts.parquet")
        assert schema.names == ["volume", "structure", "slice", "kind", "origin", "x", "y", "x2", "y2", "area"]
        for name in ("volume", "structure", "kind", "origin"):
            assert pa.types.is_string(schema.field(name).type) or pa.types.is_large_string(schema.field(name).type)
        for name in ("x", "y", "x2", "y2"):
            assert schema.field(name).type == pa.float32()
        assert schema.field("slice").type == pa.int32()
        assert schema.field("area").type == pa.int64()
    stored = pq.read_table(tmp_path / "prompts.parquet").to_pylist()
    assert [(row["x2"], row["y2"]) for row in stored if row["kind"] == "point"] == [(None, None)] * 4
    assert [row["area"] for row in stored] == [6, 6, 6, 6, None]


def test_types_of_an_empty_table(tmp_path: Path) -> None:
    table = extract(shard(tmp_path, {"a": None}), [])
    assert len(table) == 0
    assert pq.read_schema(tmp_path / "prompts.parquet").field("x").type == pa.float32()


def test_metadata(tmp_path: Path) -> None:
    folder = shard(tmp_path, {"a": labelled(), "b": None})
    extract(folder, [])
    metadata = table_metadata(tmp_path / "prompts.parquet")
    assert metadata["schema_version"] == "2"
    known = read_volume_table(folder).set_index("volume")
    assert json.loads(metadata["sources"]) == {
        "a": [known.loc["a", "sha256"], known.loc["a", "reference_sha256"]],
        "b": [known.loc["b", "sha256"], ""],
    }
    assert len(known.loc["a", "sha256"]) == 64
    assert json.loads(metadata["failed"]) == {}


def test_a_wrong_click_fails_its_volume_alone(tmp_path: Path) -> None:
    folder = shard(tmp_path, {"a": labelled(), "b": labelled()})
    table = extract(folder, [{"volume": "a", **click(slice=4)}, {"volume": "b", **click(slice=2)}])
    assert set(table["volume"]) == {"b"}
    failed = json.loads(table_metadata(tmp_path / "prompts.parquet")["failed"])
    assert list(failed) == ["a"]
    assert failed["a"].startswith("a: click on 'femur' at slice 4")


def test_volumes_that_were_not_converted_have_no_prompts(tmp_path: Path) -> None:
    nothing = np.zeros((4, 8, 6), dtype=np.uint8)  # no configured label: fails in conversion
    folder = shard(tmp_path, {"a": nothing, "b": labelled()})
    table = extract(folder, [{"volume": "a", **click()}])
    assert set(table["volume"]) == {"b"}
