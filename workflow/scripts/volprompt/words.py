"""Counts and lists as messages say them; the report has thousands with commas, see `report/facts.py`."""

from __future__ import annotations

from collections.abc import Sequence


def plural(number: int, word: str) -> str:
    """Return `1 volume` or `2 volumes`."""
    return f"{number} {word}{'s' * (number != 1)}"


def at_most(items: Sequence[str], most: int) -> list[str]:
    """Return the first items, and after them how many more there are."""
    return [*items[:most], *([f"and {len(items) - most} more"] if len(items) > most else [])]
