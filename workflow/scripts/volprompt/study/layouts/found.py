"""What a layout gives: rows of the sample sheet, what it could not use, and lines for the configuration."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volprompt.errors import VolpromptError
from volprompt.settings.values import LONGEST_NAME


class LayoutError(VolpromptError):
    """Folders in which nothing of the layout was found, or a sheet that would be overwritten."""


@dataclass(frozen=True)
class Row:
    """A row of the sample sheet."""

    volume: str
    image: Path
    reference: Path | None = None
    group: str = ""


@dataclass
class Found:
    """What was matched, what was not and why, and what goes into the configuration.

    structures: lines of this section; ignore: numbers of labels that count nowhere.
    """

    rows: list[Row] = field(default_factory=list)
    unmatched: list[tuple[Path, str]] = field(default_factory=list)
    structures: list[str] = field(default_factory=list)
    ignore: list[int] = field(default_factory=list)


def given_folders(folders: Sequence[Path], count: int, what: str) -> list[Path]:
    """The folders of a layout, one that is named twice in one spelling. what: is expected. Raises LayoutError."""
    if len(folders) != count:
        raise LayoutError(f"found {len(folders)} folders; expected {what}")
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise LayoutError(f"{missing[0]}: no such folder; expected {what}")
    return [next(first for first in folders if first.samefile(folder)) for folder in folders]


def clean_name(text: str) -> str:
    """A name that can be part of a file's: accents are left out, other characters become `_`; empty if none is left."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return re.sub(r"[^A-Za-z0-9._+-]", "_", plain).lstrip("._+-").rstrip(".")[:LONGEST_NAME]
