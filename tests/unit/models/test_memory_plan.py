"""What a step reads of memory, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from volprompt.models.memory_plan import MemoryRules, Row, plan_step


def row_on_its_way(prompted: list[int], passed: list[int], depth: int = 20) -> Row:
    """An object prompted on some slices, with others behind it."""
    prompts = [SimpleNamespace(slice=index) for index in prompted]
    tracked: Any = SimpleNamespace(prompts=prompts, start=min(prompted), features=SimpleNamespace(depth=depth))
    row = Row(0, tracked, range(len(prompted) + len(passed)), lasting=True)
    for index in passed:
        row.remember(index)
    return row


@pytest.mark.parametrize("pointers_of_all", [False, True])
def test_more_prompted_slices_than_are_attended_to(pointers_of_all: bool) -> None:
    """On slice 6 those of 2, 3 and 9 are too many for two: 3 and 9 are the closest, 2 counts as a slice on the way."""
    rules = MemoryRules(slices=5, prompted=2, pointers=6, past_only=False, pointers_of_all=pointers_of_all)
    row = row_on_its_way([2, 3, 9], [4, 5])
    step = plan_step(rules, row, 6, reverse=False)
    # Positions 1 to 4 are slices 2 to 5.
    places = [(0, row.prompted[3]), (0, row.prompted[9]), (1, row.prompted[2]), (3, row.places[4]), (4, row.places[5])]
    assert sorted(step.spatial) == sorted(places)
    # Distances from slice 6; slice 2 has its pointer once, as a prompted slice or as one on the way.
    assert sorted(step.pointers) == [(-3, 9), (1, 5), (2, 4), (3, 3), (4, 2)]
    assert [each for _, each in step.pointers].index(2) == (0 if pointers_of_all else 4)


def test_a_prompted_slice_out_of_reach() -> None:
    """Nine slices behind, its pointer is read only where those of all prompted slices are."""
    row = row_on_its_way([0, 8, 9], [])
    for pointers_of_all, expected in ((False, [8, 9]), (True, [0, 8, 9])):
        rules = MemoryRules(slices=5, prompted=2, pointers=6, past_only=False, pointers_of_all=pointers_of_all)
        step = plan_step(rules, row, 10, reverse=False)
        assert sorted(each for _, each in step.pointers) == expected


def test_the_way_back() -> None:
    """In reverse, slices with higher numbers lie behind, and distances count the other way."""
    row = row_on_its_way([9], [8, 7])
    step = plan_step(MemoryRules(slices=3, pointers=6), row, 6, reverse=True)
    assert step.spatial == [(0, row.prompted[9]), (1, row.places[8]), (2, row.places[7])]
    assert sorted(step.pointers) == [(1, 7), (2, 8), (3, 9)]


def test_a_stride() -> None:
    """With a stride of 3, slices before the last one are multiples of three below it: 9 and 6 on slice 12."""
    row = row_on_its_way([2], list(range(3, 12)))
    step = plan_step(MemoryRules(slices=4, stride=3, pointers=0), row, 12, reverse=False)
    assert step.spatial == [(0, row.prompted[2]), (1, row.places[6]), (2, row.places[9]), (3, row.places[11])]
    assert step.pointers == []
