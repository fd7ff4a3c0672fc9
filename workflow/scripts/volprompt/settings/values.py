"""What a name, a path and a number may be, in the configuration and in its tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LONGEST_FILE_NAME = 255  # bytes, on all usual file systems
LONGEST_NAME = 100  # files are named by a volume and a structure together
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Kinds of a key that takes one value, or one for each of several names. Pydantic names them in a fault's place.
ONE, EACH = "[one]", "[each]"
# Snakemake's pathvars.
PLACEHOLDER = re.compile(r"<[a-z][a-z0-9_]*>")
# What YAML 1.1 takes for other numbers than people do: 010 (8), 1:30 (90).
UNCLEAR_NUMBER = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?")


def name_fault(name: str, becomes: str = "part of file names") -> str:
    """What is wrong with a name that becomes a file's, as the end of a sentence; empty if nothing is."""
    if not NAME.fullmatch(name):
        return f"becomes {becomes}: use letters, digits, and . _ + - inside"
    if len(name) > LONGEST_NAME:
        return f"becomes {becomes}, and has {len(name)} characters: use at most {LONGEST_NAME}"
    if name.endswith("."):
        return f"becomes {becomes}, and ends in a dot, which some file systems drop: leave it out"
    return ""


def same_but_for_case(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that some file systems take for one: a name, and the earlier one that differs only in case."""
    first: dict[str, str] = {}
    return [(name, first[name.lower()]) for name in names if first.setdefault(name.lower(), name) != name]


def path_fault(path: str) -> str:
    """What is wrong with the text of a path, as the end of a sentence; empty if nothing is."""
    if not path.strip():
        return "is empty; expected a path"
    if "{" in path or "}" in path:
        return "holds { or }, which Snakemake takes for a wildcard: rename the file or folder"
    if placeholder := PLACEHOLDER.search(path):
        return f"holds {placeholder[0]}, which Snakemake replaces: rename the file or folder"
    if path.startswith("~"):
        return f"begins with ~, which a shell alone expands: write the whole path, {os.path.expanduser(path)}"
    if any(len(part.encode(errors="replace")) > LONGEST_FILE_NAME for part in path.split("/")):
        return f"holds a name of more than {LONGEST_FILE_NAME} bytes, which no file can have"
    if CONTROL.search(path):
        return "holds a line break, a tab or another control character: take it out"
    return ""


def number_fault(value: Any) -> str:
    """What is wrong with how a number is given; empty if nothing is. Python itself would take True for 1, 08 for 8."""
    if isinstance(value, bool):
        return "expected another value than true or false"
    if isinstance(value, str) and UNCLEAR_NUMBER.fullmatch(value.strip()):
        return "expected a decimal number without leading zeros and `:`"
    return ""


def _checked_name(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(f"'{name}' {fault}")
    return name


def _checked_path(path: str) -> str:
    if fault := path_fault(path):
        raise ValueError(f"'{path}' {fault}")
    return path


Name = Annotated[str, AfterValidator(_checked_name)]
PathText = Annotated[str, AfterValidator(_checked_path)]
# Spelt in one way, since Snakemake knows a file by its path's text.
Folder = Annotated[PathText, AfterValidator(os.path.normpath)]
