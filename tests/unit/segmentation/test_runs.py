"""Rows of the run table, worked out by hand."""

from __future__ import annotations

import json

import numpy as np

from volprompt.prompts.schemes import ObjectPrompt, SchemePrompts
from volprompt.segmentation.runs import human_prompts, run_row

ASKED = SchemePrompts([], [], {}, {})
FEMUR, TIBIA, PATELLA = (10.0, 20.0), (10.0, 60.0), (2.0, 30.0)


def points(structure: str, index: int, *places: tuple[float, float]) -> ObjectPrompt:
    labels = np.array([1, *[0] * (len(places) - 1)], np.int32)
    return ObjectPrompt(structure, index, np.array(places, np.float32), labels)


THREE_POINTS = [points("femur", 80, FEMUR, TIBIA, PATELLA), points("tibia", 80, TIBIA, FEMUR, PATELLA)]


def test_three_points_for_two_objects_are_three_clicks_of_a_person() -> None:
    assert sum(prompt.count for prompt in THREE_POINTS) == 6
    assert human_prompts(THREE_POINTS) == 3


def test_points_on_two_slices_are_two() -> None:
    assert human_prompts([points("femur", 80, FEMUR), points("femur", 81, FEMUR)]) == 2


def test_boxes_and_masks_count_each() -> None:
    empty = np.empty((0, 2), np.float32), np.empty(0, np.int32)
    box = np.array([1, 2, 3, 4], np.float32)
    prompts = [
        ObjectPrompt("femur", 80, *empty, box=box),
        ObjectPrompt("tibia", 80, *empty, box=box),
        ObjectPrompt("patella", 80, *empty, mask=np.ones((2, 2), bool)),
    ]
    assert human_prompts(prompts) == 3


def test_correction_clicks_are_prompts_too() -> None:
    row = run_row("a", "s", 160, THREE_POINTS, ASKED, {"prompt": 2.0}, clicked=["femur", "tibia", "femur"])
    assert (row["prompts"], row["human_prompts"]) == (9, 6)
    assert json.loads(row["prompts_of"]) == {"femur": 3, "tibia": 3}
    assert json.loads(row["clicks_of"]) == {"femur": 2, "tibia": 1}
