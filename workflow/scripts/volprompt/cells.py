"""Text in tables that people open in a spreadsheet, which would take a cell that begins with a sign for a formula."""

from __future__ import annotations

import re

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def as_cell(text: str) -> str:
    """Return text as it goes into a table: with an apostrophe before what would be a formula. Numbers stay as they are.

    `from_cell` gives any text back as it was.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def from_cell(text: str) -> str:
    """Return the text of a cell that `as_cell` made."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
