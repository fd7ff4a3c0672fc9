"""Inputs that are nearly right end in a result or in a clear fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.fuzz_inputs import outcomes


@pytest.mark.slow
def test_inputs_changed_by_chance(rounds: Callable[[int], int]) -> None:
    found = list(outcomes(rounds(500), seed=1))
    assert [outcome for outcome in found if outcome.kind not in ("result", "fault")] == []
    assert {outcome.kind for outcome in found} == {"result", "fault"}
