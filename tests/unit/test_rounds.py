"""Long tests, marked slow, can be cut down to a share of their rounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def test_rounds_of_a_long_test(rounds: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLPROMPT_TEST_ROUNDS", raising=False)
    assert rounds(1000) == 1000
    monkeypatch.setenv("VOLPROMPT_TEST_ROUNDS", "0.05")
    assert (rounds(1000), rounds(3)) == (50, 1)
