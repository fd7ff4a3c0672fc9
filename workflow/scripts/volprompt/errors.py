"""Errors that a user can act on: their message is all that needs to be shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VolpromptError(Exception):
    """Base of every expected error; its message names what was found, what was expected and what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or what kind of error it is where there is none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def suggestion(word: str, known: Iterable[str]) -> str:
    """End a message on an unknown word with the known one that was probably meant; empty if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
