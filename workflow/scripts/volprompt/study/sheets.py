"""The sample sheet and the tables of clicks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volprompt.cells import from_cell
from volprompt.files import separator
from volprompt.settings.config import NAME, Settings
from volprompt.settings.reading import hint


@dataclass(frozen=True)
class SheetRow:
    """A row of the sample sheet; what a volume does not have is empty."""

    volume: str
    image: str
    reference: str = ""
    group: str = ""
    clicks: str = ""
    series: str = ""

    def plain(self) -> dict[str, str]:
        """The row as the conversion takes it; `series` only where one is chosen."""
        row = {"volume": self.volume, "image": self.image, "reference": self.reference}
        return {**row, "series": self.series} if self.series else row


@dataclass(frozen=True)
class Click:
    """A row of a clicks table; x and y in pixels of the frame, slice counted from 0."""

    volume: str
    structure: str
    slice: int
    x: float
    y: float


def read_rows(path: str, delimiter: str, required: set[str], optional: set[str], faults: list[str]) -> list[dict]:
    """Read a table with a header; each row also holds its line number under `line`."""
    if not Path(path).is_file():
        faults.append(f"{path}: no such file")
        return []
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 text ({error}); save it in that encoding")
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = set(reader.fieldnames or [])
        missing, unknown = required - columns, columns - required - optional
        if missing:
            faults.append(f"{path}: column(s) {', '.join(sorted(missing))} missing; found {', '.join(sorted(columns))}")
            return []
        if unknown:
            faults.append(f"{path}: unknown column(s) {', '.join(sorted(map(str, unknown)))}")
        return [{**{k: _text_of(v) for k, v in row.items()}, "line": reader.line_num} for row in reader]
    except csv.Error as error:
        faults.append(f"{path} line {reader.line_num}: is no row of a table ({error}); correct or remove it")
        return []


def _text_of(cell: str | list[str] | None) -> str | list[str]:
    """Return the text of a cell, or of the cells beyond the header's."""
    return from_cell(cell) if isinstance(cell, str) else cell or ""


def read_volumes(path: str, skip_missing: bool, faults: list[str]) -> list[SheetRow]:
    """Read the sample sheet; what is wrong with it is added to `faults`.

    skip_missing: whether a file that does not exist is left for the conversion to record.
    """
    rows = read_rows(
        path, separator(path, "\t"), {"volume", "image"}, {"reference", "clicks", "group", "series"}, faults
    )
    volumes: list[SheetRow] = []
    lines: dict[str, int] = {}
    for row in rows:
        place = f"{path} line {row['line']}"
        name = row["volume"]
        if not NAME.fullmatch(name):
            faults.append(f"{place}: volume '{name}' becomes a file name: use letters, digits, and . _ + - inside")
            continue
        if name in lines:
            faults.append(f"{place}: volume '{name}' stands already in line {lines[name]}")
            continue
        lines[name] = row["line"]
        for column in ("image", "reference"):
            missing = not row.get(column) or not (skip_missing or Path(row[column]).exists())
            if missing and (row.get(column) or column == "image"):
                faults.append(f"{place}: {column} '{row[column]}' of volume '{name}' does not exist")
        rest = (row.get(key, "") for key in ("reference", "group", "clicks", "series"))
        volumes.append(SheetRow(name, row["image"], *rest))
    if not rows and Path(path).is_file() and not any(fault.startswith(path) for fault in faults):
        faults.append(f"{path}: lists no volume")
    return volumes


def read_clicks(settings: Settings, volumes: Sequence[SheetRow], faults: list[str]) -> list[Click]:
    """Read the study's table of clicks and the tables that single volumes name in the sample sheet."""
    clicks = read_click_table(settings.clicks, settings, None, faults) if settings.clicks else []
    if clicks and not {click.volume for click in clicks} & {row.volume for row in volumes}:
        faults.append(
            f"{settings.clicks}: none of its volumes is in {settings.volumes}; found '{clicks[0].volume}', ..."
        )
    for volume in volumes:
        if volume.clicks:
            clicks += read_click_table(volume.clicks, settings, volume.volume, faults)
    return clicks


def read_click_table(path: str, settings: Settings, volume: str | None, faults: list[str]) -> list[Click]:
    """Read a clicks table: the study's, or that of one `volume`. What is wrong with it is added to `faults`."""
    clicks: list[Click] = []
    required = {"structure", "slice", "x", "y"} | ({"volume"} if volume is None else set())
    for row in read_rows(path, separator(path, ","), required, {"volume"}, faults):
        place = f"{path} line {row['line']}"
        structure = row["structure"]
        if structure not in settings.structures:
            faults.append(f"{place}: there is no structure '{structure}'{hint(structure, settings.structures)}")
        try:
            numbers = click_numbers(row)
        except ValueError:
            faults.append(
                f"{place}: slice, x and y are '{row['slice']}', '{row['x']}', '{row['y']}'; expected a whole number "
                "and two numbers"
            )
            continue
        if numbers[0] < 0:
            faults.append(f"{place}: slice is {numbers[0]}; slices are counted from 0")
        if volume in (None, row.get("volume") or volume):
            clicks.append(Click(volume or row["volume"], structure, *numbers))
    return clicks


def click_numbers(row: Mapping[str, str]) -> tuple[int, float, float]:
    """Return slice, x and y of a row of a clicks table, where 80.0 is the same slice as 80.

    Raises ValueError unless they are a whole number and two finite ones.
    """
    slice_, x, y = (float(row[name]) for name in ("slice", "x", "y"))
    if not (slice_.is_integer() and math.isfinite(x) and math.isfinite(y)):
        raise ValueError("expected a whole number and two finite numbers")
    return int(slice_), x, y
