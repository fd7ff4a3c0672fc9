"""What each scheme gives a predictor, from prompt tables written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from volprompt.prompts.available import FrameGrid
from volprompt.prompts.candidates import as_prompt_table
from volprompt.prompts.schemes import (
    ObjectPrompt,
    SchemePrompts,
    clicks_needed,
    middle_slice,
    scheme_prompts,
    with_masks,
    with_spread_points,
)
from volprompt.settings.schemes import Scheme

STRUCTURES = ["femur", "tibia", "patella"]
SCORED = ["femur", "tibia"]
# Each structure's place in a slice; the slice's index is added to x.
PLACE = {"femur": (100, 10), "tibia": (200, 20), "patella": (300, 30)}


ELSEWHERE = "; prompt another slice (slice: nearest or largest)"


def point(structure: str, slice: int, origin: str = "centroid", area: int | None = 50) -> dict[str, Any]:
    """A point that tells where it comes from: y ends in .25 for an interior point and .5 for a click."""
    x, y = PLACE[structure]
    y_of = {"centroid": y, "interior": y + 0.25, "click": y + 0.5, "negative_click": y}
    row = {"structure": structure, "slice": slice, "kind": "point", "origin": origin, "x": x + slice, "y": y_of[origin]}
    return {"volume": "knee", **row, "area": area}


def box(structure: str, slice: int, area: int | None = 50) -> dict[str, Any]:
    x, y = PLACE[structure]
    corners = {"x": x + slice - 4, "y": y - 3, "x2": x + slice + 4, "y2": y + 3}
    row = {"structure": structure, "slice": slice, "kind": "box", "origin": "bounding_box", **corners, "area": area}
    return {"volume": "knee", **row}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return as_prompt_table(rows)


def given(
    scheme: dict[str, Any],
    rows: pd.DataFrame,
    depth: int = 10,
    scored: list[str] = SCORED,
    frame: FrameGrid | None = None,
) -> list[ObjectPrompt]:
    return scheme_prompts(Scheme(**scheme), rows, STRUCTURES, scored, depth, frame).prompts


def slices(prompts: list[ObjectPrompt]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for prompt in prompts:
        found.setdefault(prompt.structure, []).append(prompt.slice)
    return found


def chosen(scheme: dict[str, Any], rows: pd.DataFrame, depth: int = 10) -> SchemePrompts:
    return scheme_prompts(Scheme(**scheme), rows, STRUCTURES, SCORED, depth)


def missing(scheme: dict[str, Any], rows: pd.DataFrame, depth: int = 10) -> dict[str, str]:
    return chosen(scheme, rows, depth).unprompted


VIDEO = {"predictor": "video", "point": "centroid"}
# Points of all structures on every slice of ten.
EVERYWHERE = table(*(point(name, index) for name in STRUCTURES for index in range(10)))


# Image schemes


def test_points_on_every_slice() -> None:
    prompts = given({"predictor": "image", "point": "centroid"}, EVERYWHERE, depth=10)
    assert slices(prompts) == {"femur": list(range(10)), "tibia": list(range(10))}
    third = next(prompt for prompt in prompts if prompt.structure == "tibia" and prompt.slice == 3)
    assert third.points.tolist() == [[203, 20]]
    assert third.labels.tolist() == [1]
    assert third.box is None
    assert (third.points.dtype, third.labels.dtype) == (np.float32, np.int32)


def test_slices_without_a_prompt_are_skipped() -> None:
    rows = table(point("femur", 2), point("femur", 7), point("tibia", 7), point("tibia", 4, "click"))
    prompts = given({"predictor": "image", "point": "centroid"}, rows)
    assert slices(prompts) == {"femur": [2, 7], "tibia": [7]}


def test_boxes() -> None:
    prompts = given({"predictor": "image", "box": True}, table(box("femur", 2), point("tibia", 3)))
    (only,) = prompts
    assert (only.structure, only.slice) == ("femur", 2)
    assert only.box is not None
    assert only.box.tolist() == [98, 7, 106, 13]
    assert only.box.dtype == np.float32
    assert only.points.shape == (0, 2)
    assert only.labels.shape == (0,)


def test_box_and_point_are_both_needed() -> None:
    rows = table(box("femur", 2), point("femur", 2), box("femur", 3), point("femur", 4))
    (only,) = given({"predictor": "image", "box": True, "point": "centroid"}, rows)
    assert only.slice == 2
    assert only.points.tolist() == [[102, 10]]
    assert only.box is not None
    assert only.box.tolist() == [98, 7, 106, 13]


def test_an_image_scheme_without_any_prompt() -> None:
    found = missing({"predictor": "image", "point": ["click", "interior"]}, EVERYWHERE)
    assert found == {name: f"no slice has a point (click or interior) for '{name}'; click on it" for name in SCORED}


def test_negatives_of_an_image_scheme_are_those_that_are_there() -> None:
    rows = table(point("femur", 2), point("tibia", 2), point("femur", 3))
    prompts = given({"predictor": "image", "point": "centroid", "negatives": "others"}, rows)
    assert [(p.structure, p.slice, p.points.tolist(), p.labels.tolist()) for p in prompts] == [
        ("femur", 2, [[102, 10], [202, 20]], [1, 0]),
        ("tibia", 2, [[202, 20], [102, 10]], [1, 0]),
        ("femur", 3, [[103, 10]], [1]),
    ]


# Origins


@pytest.mark.parametrize(
    ("origins", "y"),
    [
        (["click", "centroid"], [10.5, 10]),
        (["centroid", "click"], [10, 10]),
        (["click", "interior", "centroid"], [10.5, 10.25]),
        ("interior", [10.25, 10.25]),
    ],
)
def test_the_first_available_origin_is_used(origins: Any, y: list[float]) -> None:
    rows = table(
        *(point("femur", index, origin) for index in (2, 3) for origin in ("interior", "centroid")),
        point("femur", 2, "click"),
    )
    prompts = given({"predictor": "image", "point": origins}, rows)
    assert [prompt.points[0, 1] for prompt in prompts] == y


def test_negatives_have_their_own_order_and_origin() -> None:
    rows = table(*(point(name, 5) for name in STRUCTURES), point("patella", 5, "click"))
    scheme = {**VIDEO, "point": ["click", "centroid"], "negatives": "others"}
    femur, tibia = given(scheme, rows)
    # Own point first, then the others in the order of the configuration.
    assert femur.points.tolist() == [[105, 10], [205, 20], [305, 30.5]]
    assert tibia.points.tolist() == [[205, 20], [105, 10], [305, 30.5]]
    assert femur.labels.tolist() == tibia.labels.tolist() == [1, 0, 0]


# The slice of a video scheme


@pytest.mark.parametrize(("depth", "middle"), [(160, 80), (1, 0), (2, 1), (9, 4), (10, 5)])
def test_middle_slice(depth: int, middle: int) -> None:
    assert middle_slice(depth) == middle
    rows = table(*(point(name, index) for name in SCORED for index in range(depth)))
    assert slices(given(VIDEO, rows, depth)) == {"femur": [middle], "tibia": [middle]}
    assert slices(given({**VIDEO, "slice": "middle"}, rows, depth)) == {"femur": [middle], "tibia": [middle]}


@pytest.mark.parametrize(
    ("fraction", "depth", "index"),
    [
        (0.0, 160, 0),
        (1.0, 160, 159),
        (0.5, 160, 80),  # 79.5
        (0.25, 10, 2),  # 2.25
        (0.3, 10, 3),  # 2.7
        (0.5, 10, 5),  # 4.5
        (0.5, 11, 5),
    ],
)
def test_fraction(fraction: float, depth: int, index: int) -> None:
    rows = table(*(point(name, i) for name in SCORED for i in range(depth)))
    found = slices(given({**VIDEO, "slice": {"fraction": fraction}}, rows, depth))
    assert found == {"femur": [index], "tibia": [index]}


def test_an_image_scheme_that_propagates_prompts_one_slice() -> None:
    """With its negative points completed, or their lack told, as of a video scheme; a click page shows that slice."""
    carried = {"predictor": "image", "point": "centroid", "propagate": "box"}
    assert slices(given(carried, EVERYWHERE)) == {"femur": [5], "tibia": [5]}
    assert slices(given({**carried, "slice": [{"index": 8}, "middle"]}, EVERYWHERE)) == {
        "femur": [5, 8],
        "tibia": [5, 8],
    }
    rows = table(*(point(name, index) for name in SCORED for index in range(10)))
    nearest = chosen({**carried, "slice": "nearest", "negatives": "others"}, rows)
    assert nearest.lacking == {name: ["patella"] for name in SCORED}
    clicked = Scheme(**{**carried, "point": "click"})
    assert clicks_needed(clicked, STRUCTURES, SCORED, 10) == (SCORED, 5)


def test_index() -> None:
    assert slices(given({**VIDEO, "slice": {"index": 9}}, EVERYWHERE)) == {"femur": [9], "tibia": [9]}


def test_an_index_beyond_the_volume() -> None:
    found = missing({**VIDEO, "slice": {"index": 10}}, EVERYWHERE)
    assert found == dict.fromkeys(SCORED, "the scheme prompts slice 10; the volume has 10 slices, from 0 on")


@pytest.mark.parametrize(
    ("femur", "tibia", "nearest"),
    [
        ([1, 4, 8], [1, 4, 8], 4),
        ([3, 7], [3, 7], 3),  # both two slices from 5: the first
        ([5, 2, 9], [4, 2, 9], 2),  # 5 lacks the tibia and 4 the femur
        ([6], [6], 6),
    ],
)
def test_nearest(femur: list[int], tibia: list[int], nearest: int) -> None:
    rows = table(*(point("femur", index) for index in femur), *(point("tibia", index) for index in tibia))
    found = given({**VIDEO, "slice": "nearest", "share_slice": True}, rows)
    assert slices(found) == {"femur": [nearest], "tibia": [nearest]}
    own = slices(given({**VIDEO, "slice": "nearest"}, rows))
    assert own == {name: [min(at, key=lambda i: (abs(i - 5), i))] for name, at in (("femur", femur), ("tibia", tibia))}


def test_nearest_needs_the_negatives_too() -> None:
    rows = table(*(point(name, 5) for name in SCORED), *(point(name, 2) for name in STRUCTURES))
    assert slices(given({**VIDEO, "slice": "nearest"}, rows))["femur"] == [5]
    assert slices(given({**VIDEO, "slice": "nearest", "negatives": "others"}, rows))["femur"] == [2]


def test_nearest_where_no_slice_has_all() -> None:
    """Each object is prompted on a slice of its own, unless the scheme says that they share one."""
    rows = table(point("femur", 4), point("tibia", 9))
    for choice in ("nearest", "largest"):
        assert slices(given({**VIDEO, "slice": choice}, rows)) == {"femur": [4], "tibia": [9]}
        message = (
            "there is no slice on which 'femur', 'tibia' all have a point (centroid); leave share_slice out, and each "
            "is prompted on a slice of its own"
        )
        shared = {**VIDEO, "slice": choice, "share_slice": True}
        assert missing(shared, rows) == dict.fromkeys(SCORED, message)
        assert given(shared, rows) == []


def test_largest_on_one_slice_for_all() -> None:
    femur = [point("femur", index, area=area) for index, area in ((2, 60), (3, 90), (4, 10))]
    tibia = [point("tibia", index, area=area) for index, area in ((2, 60), (4, 90), (5, 200))]
    shared = given({**VIDEO, "slice": "largest", "share_slice": True}, table(*femur, *tibia))
    assert slices(shared) == {"femur": [2], "tibia": [2]}  # 60 + 60 pixels; on slice 4 there are 10 + 90


def test_an_absent_structure_is_not_prompted_and_holds_up_nobody() -> None:
    rows = table(*(make("femur", index) for index in (4, 5) for make in (point, box)))
    for choice in ("middle", "nearest", "largest"):
        for more in ({}, {"negatives": "others"}):
            found = chosen({**VIDEO, "slice": choice, **more}, rows)
            assert slices(found.prompts)["femur"] == [5 if choice != "largest" else 4]
            assert (found.absent, found.unprompted) == (["tibia"], {})
            assert found.lacking == ({"femur": ["tibia", "patella"]} if more else {})
    found = chosen({**VIDEO, "slice": "nearest", "share_slice": True}, rows)
    assert (slices(found.prompts), found.unprompted) == ({"femur": [5]}, {})
    assert chosen({"predictor": "image", "point": "centroid"}, rows).absent == ["tibia"]


def test_missing_negatives_are_left_out_where_no_slice_has_them() -> None:
    rows = table(point("femur", 4), point("tibia", 9), point("patella", 9))
    found = chosen({**VIDEO, "slice": "nearest", "negatives": "others"}, rows)
    assert {prompt.structure: prompt.labels.tolist() for prompt in found.prompts} == {"femur": [1], "tibia": [1, 0]}
    assert found.lacking == {"femur": ["tibia", "patella"], "tibia": ["femur"]}


def test_without_a_reference_nothing_is_absent() -> None:
    rows = table(point("femur", 5, "click"))
    found = chosen({**VIDEO, "point": "click", "slice": "nearest"}, rows)
    assert slices(found.prompts) == {"femur": [5]}
    assert (found.absent, found.unprompted) == ([], {"tibia": "no slice has a point (click) for 'tibia'; click on it"})
    by_box = missing({"predictor": "image", "box": True}, rows)
    assert by_box["femur"] == "no slice has a box for 'femur'; give the volume a reference"


def test_largest_is_each_structures_own() -> None:
    femur = [point("femur", index, area=area) for index, area in ((2, 10), (3, 90), (4, 90), (5, 20))]
    tibia = [point("tibia", index, area=area) for index, area in ((2, 10), (3, 20), (4, 30), (5, 40))]
    prompts = given({**VIDEO, "slice": "largest"}, table(*femur, *tibia))
    assert slices(prompts) == {"femur": [3], "tibia": [5]}  # the femur's first of two equals
    assert [prompt.points.tolist() for prompt in prompts] == [[[103, 10]], [[205, 20]]]


# Several slices, masks


def test_several_slices_in_their_order() -> None:
    scheme = {**VIDEO, "slice": [{"fraction": 0.8}, "middle", {"index": 2}]}
    prompts = given(scheme, EVERYWHERE)
    assert slices(prompts) == {"femur": [2, 5, 7], "tibia": [2, 5, 7]}
    assert [prompt.points[0, 0] for prompt in prompts if prompt.structure == "femur"] == [102, 105, 107]


def test_slices_that_coincide_are_prompted_once() -> None:
    assert slices(given({**VIDEO, "slice": ["middle", "nearest", {"index": 5}]}, EVERYWHERE))["femur"] == [5]


def test_each_of_several_slices_must_be_complete() -> None:
    rows = table(*(point(name, index) for name in SCORED for index in (3, 5)))
    message = missing({**VIDEO, "slice": ["middle", {"index": 7}]}, rows)
    assert message == {name: f"slice 7 has no point (centroid) for '{name}'" + ELSEWHERE for name in SCORED}


def test_masks_of_the_reference() -> None:
    """A structure's labels are taken together; the prompted slice is that of its own largest area."""
    reference = np.zeros((4, 3, 5), np.uint8)
    reference[1, 0, 0] = 1
    reference[2, 1:, 2:4] = [[1, 2], [3, 2]]
    rows = table(box("femur", 1, 1), box("femur", 2, 3), box("tibia", 2, 1))
    prompts = given({"predictor": "video", "mask": True, "slice": ["largest", {"index": 2}]}, rows, 4)
    assert slices(prompts) == {"femur": [2], "tibia": [2]}
    femur, tibia = with_masks(prompts, reference, {"femur": [1, 2], "tibia": [3]})
    assert femur.mask is not None
    assert tibia.mask is not None
    assert femur.mask.tolist() == [[False] * 5, [False, False, True, True, False], [False, False, False, True, False]]
    assert np.argwhere(tibia.mask).tolist() == [[2, 2]]
    assert len(femur.points) == 0


def test_a_missing_mask_names_its_structure() -> None:
    found = missing({"predictor": "video", "mask": True}, table(box("femur", 5), box("tibia", 4)))
    assert found == {"tibia": "slice 5 has no mask for 'tibia'" + ELSEWHERE}


# Noise

WIDE = FrameGrid((400, 900), (0.5, 2.0))
NOISY = {"predictor": "image", "point": "centroid", "box": True, "noise": {"points_mm": 3, "boxes_mm": 2, "seed": 7}}
ROWS = table(*(make(name, index) for name in SCORED for index in range(3) for make in (point, box)))


def test_noise_is_the_same_every_time_and_other_with_another_seed() -> None:
    first, again = given(NOISY, ROWS, 3, frame=WIDE), given(NOISY, ROWS.iloc[::-1], 3, frame=WIDE)
    other = given({**NOISY, "noise": {**NOISY["noise"], "seed": 8}}, ROWS, 3, frame=WIDE)  # type: ignore[dict-item]
    elsewhere = given(NOISY, ROWS.assign(volume="other"), 3, frame=WIDE)
    for one, same, *others in zip(first, again, other, elsewhere, strict=True):
        assert one.points.tolist() == same.points.tolist()
        assert one.box is not None
        assert same.box is not None
        assert one.box.tolist() == same.box.tolist()
        assert all((one.points != different.points).all() for different in others)
    moves = {tuple(p.points[0] - [PLACE[p.structure][0] + p.slice, PLACE[p.structure][1]]) for p in first}
    assert len(moves) == len(first), "each structure and slice has its own displacement"


def test_noise_on_points_does_not_depend_on_boxes() -> None:
    alone = {**NOISY, "box": False}
    for one, both in zip(given(alone, ROWS, 3, frame=WIDE), given(NOISY, ROWS, 3, frame=WIDE), strict=True):
        assert one.points.tolist() == both.points.tolist()


def test_a_displaced_point_is_the_same_as_anothers_negative() -> None:
    scheme = {**VIDEO, "negatives": "others", "noise": {"points_mm": 4}}
    femur, tibia = given(scheme, EVERYWHERE, frame=WIDE)
    assert femur.points[0].tolist() == tibia.points[1].tolist()
    assert femur.points[1].tolist() == tibia.points[0].tolist()


def test_noise_is_in_millimetres() -> None:
    """Over 4000 prompts: standard deviations in millimetres along x (2 mm a pixel) and y (0.5 mm), means of 0."""
    many = 4000
    rows = as_prompt_table(
        {**make("femur", 0), "slice": index, **({"x": 450, "y": 200} if make is point else BIG)}
        for index in range(many)
        for make in (point, box)
    )
    prompts = given(NOISY, rows, many, ["femur"], WIDE)
    points = np.array([prompt.points[0] for prompt in prompts]) - [450, 200]
    assert points.std(axis=0) * [2.0, 0.5] == pytest.approx([3, 3], rel=0.05)
    assert points.mean(axis=0) * [2.0, 0.5] == pytest.approx([0, 0], abs=0.2)
    boxes = np.array([prompt.box for prompt in prompts]) - list(BIG.values())
    assert boxes.std(axis=0) * [2.0, 0.5, 2.0, 0.5] == pytest.approx([2, 2, 2, 2], rel=0.05)
    assert np.abs(np.corrcoef(np.hstack([points, boxes]).T) - np.eye(6)).max() < 0.08


BIG = {"x": 400, "y": 150, "x2": 500, "y2": 250}


def test_displaced_prompts_stay_in_the_frame_and_in_order() -> None:
    small = FrameGrid((5, 8), (1.0, 1.0))
    rows = as_prompt_table(
        {
            **make("femur", 0),
            "slice": index,
            **({"x": 7, "y": 0} if make is point else {"x": 3, "y": 2, "x2": 4, "y2": 2}),
        }
        for index in range(50)
        for make in (point, box)
    )
    noise = {"points_mm": 20, "boxes_mm": 20}
    prompts = given({**NOISY, "noise": noise}, rows, 50, ["femur"], small)
    points, boxes = np.array([p.points[0] for p in prompts]), np.array([p.box for p in prompts])
    assert points.min() == 0
    assert points.max(axis=0).tolist() == [7, 4]
    assert boxes.min() == 0
    assert boxes.max(axis=0).tolist() == [7, 4, 7, 4]
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 0] < boxes[:, 2]).any()


# Several points


def test_all_clicks_of_a_table_with_labels() -> None:
    rows = table(
        point("femur", 5, "click"),
        {**point("femur", 5, "click"), "x": 7},
        {**point("femur", 5, "negative_click"), "x": 8},
        point("tibia", 5, "click"),
        point("tibia", 5, "negative_click"),
    )
    femur, _ = given({**VIDEO, "point": "click"}, rows)
    assert femur.points.tolist() == [[105, 10.5], [7, 10.5], [8, 10]]
    assert femur.labels.tolist() == [1, 1, 0]
    femur, _ = given({**VIDEO, "point": "click", "negatives": "others", "slice": "nearest"}, rows)
    assert femur.labels.tolist() == [1, 1, 0, 0]  # its own negative click, then the tibia's point
    assert femur.points.tolist()[-1] == [205, 20.5]


def test_negative_clicks_alone_prompt_nothing() -> None:
    rows = table(point("femur", 5, "negative_click"), point("tibia", 5, "click"))
    assert missing({**VIDEO, "point": "click"}, rows).keys() == {"femur"}


def test_negative_clicks_go_with_clicks_only() -> None:
    rows = table(point("femur", 5), point("femur", 5, "negative_click"), point("tibia", 5))
    femur, _ = given(VIDEO, rows)
    assert femur.labels.tolist() == [1]


def test_points_spread_inside_the_mask() -> None:
    reference = np.zeros((10, 30, 120), np.uint8)
    reference[5, 10, 90:111] = 1  # a bar around the femur's point (105, 10)
    rows = table(point("femur", 5), point("tibia", 5), point("patella", 5))
    femur, tibia = given({**VIDEO, "negatives": "others", "points": 3}, rows)
    more, _ = with_spread_points([femur, tibia], 3, reference, {"femur": [1], "tibia": [2]}, (1.0, 1.0))
    assert more.points.tolist() == [[105, 10], [90, 10], [97, 10], [205, 20], [305, 30]]
    assert more.labels.tolist() == [1, 1, 1, 0, 0]


# What is missing


def test_a_missing_point_names_its_structure() -> None:
    rows = table(point("femur", 5), point("tibia", 4))
    assert missing(VIDEO, rows) == {"tibia": "slice 5 has no point (centroid) for 'tibia'" + ELSEWHERE}
    assert slices(given(VIDEO, rows)) == {"femur": [5]}


def test_a_missing_negative_point_names_its_structure() -> None:
    rows = table(*(point(name, 5) for name in SCORED), point("patella", 4))
    scheme = {**VIDEO, "point": ["click", "centroid"], "negatives": "others"}
    reason = f"slice 5 has no point (click or centroid) for 'patella'{ELSEWHERE}, or click on that one"
    assert missing(scheme, rows) == dict.fromkeys(SCORED, reason)


def test_a_click_takes_the_place_of_a_missing_centroid() -> None:
    rows = table(*(point(name, 5) for name in SCORED), point("patella", 5, "click"))
    femur, _ = given({**VIDEO, "point": ["click", "centroid"], "negatives": "others"}, rows)
    assert femur.points.tolist() == [[105, 10], [205, 20], [305, 30.5]]


def test_a_missing_box_names_its_structure() -> None:
    rows = table(point("femur", 5), point("tibia", 5), box("femur", 5))
    found = missing({"predictor": "video", "point": "centroid", "box": True}, rows)
    assert found == {"tibia": "slice 5 has no point (centroid) or box for 'tibia'" + ELSEWHERE}


# Objects


def test_structures_that_are_not_scored_are_no_objects() -> None:
    assert set(slices(given(VIDEO, EVERYWHERE))) == {"femur", "tibia"}
    assert set(slices(given({"predictor": "image", "point": "centroid"}, EVERYWHERE))) == {"femur", "tibia"}


def test_a_scheme_names_its_objects() -> None:
    prompts = given({**VIDEO, "structures": ["femur", "tibia", "patella"]}, EVERYWHERE)
    assert [prompt.structure for prompt in prompts] == ["femur", "tibia", "patella"]


def test_only_the_objects_need_a_point() -> None:
    rows = table(point("tibia", 5))
    (only,) = given(VIDEO, rows, scored=["tibia"])
    assert (only.structure, only.slice) == ("tibia", 5)
