"""Counts and lists as messages say them."""

import pytest

from volprompt.words import at_most, plural


@pytest.mark.parametrize(("number", "said"), [(0, "0 files"), (1, "1 file"), (1200, "1200 files")])
def test_one_is_singular(number: int, said: str) -> None:
    assert plural(number, "file") == said


@pytest.mark.parametrize(
    ("items", "listed"), [([], []), (["a", "b"], ["a", "b"]), (["a", "b", "c", "d"], ["a", "b", "and 2 more"])]
)
def test_long_lists_end_with_how_many_more(items: list[str], listed: list[str]) -> None:
    assert at_most(items, 2) == listed
