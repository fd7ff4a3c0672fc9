"""The sample sheet and the tables of clicks."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volprompt.cells import from_cell
from volprompt.columns import JOINED_COLUMNS, SCORE_COLUMNS
from volprompt.errors import suggestion
from volprompt.files import separator
from volprompt.settings.config import Settings
from volprompt.settings.reading import hint
from volprompt.settings.values import name_fault, path_fault, same_but_for_case

SHEET_COLUMNS = ("volume", "image", "reference", "group", "clicks", "series")
# Further columns are covariates, which become columns of the tables beside these.
COVARIATE = re.compile(r"[A-Za-z]\w*", re.ASCII)
RESERVED = {*SCORE_COLUMNS, *JOINED_COLUMNS, "line"}


@dataclass(frozen=True)
class SheetRow:
    """A row of the sample sheet; what a volume does not have is empty.

    covariates: the texts of the sheet's further columns, which reach the tables.
    """

    volume: str
    image: str
    reference: str = ""
    group: str = ""
    clicks: str = ""
    series: str = ""
    covariates: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, str]:
        """The row as the conversion takes it; `series` only where one is chosen."""
        row = {"volume": self.volume, "image": self.image, "reference": self.reference}
        return {**row, "series": self.series} if self.series else row


@dataclass(frozen=True)
class Click:
    """A row of a clicks table; x and y in pixels of the frame, slice counted from 0.

    label: 1 for a positive click, 0 for a negative one. None in a table without labels, where of several clicks on one
    structure and slice the last one counts.
    """

    volume: str
    structure: str
    slice: int
    x: float
    y: float
    label: int | None = None


def read_rows(
    path: str,
    delimiter: str,
    required: set[str],
    optional: set[str] | None,
    faults: list[str],
    command: str = "",
) -> list[dict]:
    """Read a table with a header; each row also holds its line number under `line`.

    required, optional: names of columns; with None any further one can be there. command: what makes such a table, for
    one that is not there. A table whose form leaves open which cell belongs to which column is a fault, and gives no
    row.
    """
    text = _text_of(path, command, faults)
    if text is None:
        return []
    lines = _split(path, text, delimiter, faults)
    if lines is None:
        return []
    header = lines[0][1] if lines else []
    if unclear := _unclear_header(path, header, required):
        faults.append(unclear)
        return []
    if optional is not None and (unknown := set(header) - required - optional):
        faults.append(f"{path}: unknown column(s) {', '.join(sorted(unknown))}")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) > len(header):
            faults.append(
                f"{path} line {number}: has {len(cells)} cells, and the header {len(header)}; remove what is too much, "
                "or put a cell with a separator in it into quotes"
            )
            continue
        texts = dict(zip(header, map(from_cell, cells), strict=False))
        rows.append({**dict.fromkeys(header, ""), **texts, "line": number})
    return rows


def _text_of(path: str, command: str, faults: list[str]) -> str | None:
    """The text of a table, None with a fault if it has none."""
    if path_fault(path) or not os.path.isfile(path):
        made = f"make it with `{command}`, or " if command else ""
        faults.append(f"{path}: no such file; {made}correct the path")
        return None
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 text ({error}); save it in that encoding")
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror}); correct its rights")
    return None


def _split(path: str, text: str, delimiter: str, faults: list[str]) -> list[tuple[int, list[str]]] | None:
    """The lines of a table that are not empty, by their numbers; None with a fault where quotes do not fit.

    No cell of our tables holds a line break: where one does, a quote was opened that swallows rows.
    """
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if reader.line_num > start:
                raise csv.Error(f"it ends in line {reader.line_num}")
            if cells:
                rows.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        faults.append(
            f"{path} line {start}: a quote is opened and not closed at the end of its cell ({error}); close it there, "
            "or remove it"
        )
        return None
    return rows


def _unclear_header(path: str, header: list[str], required: set[str]) -> str:
    """What leaves open which column is which; empty if nothing does."""
    columns = set(header)
    if missing := required - columns:
        return f"{path}: column(s) {', '.join(sorted(missing))} missing; found {', '.join(sorted(columns))}"
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"{path}: column(s) {', '.join(twice)} there more than once; keep one of each" if twice else ""


def read_volumes(path: str, skip_missing: bool, faults: list[str]) -> list[SheetRow]:
    """Read the sample sheet; what is wrong with it is added to `faults`.

    skip_missing: whether a file that does not exist is left for the conversion to record.
    """
    command = f"volprompt sheet LAYOUT FOLDERS --out {shlex.quote(path)}"
    rows = read_rows(path, separator(path, "\t"), {"volume", "image"}, None, faults, command)
    covariates = [name for name in (rows[0] if rows else {}) if name not in (*SHEET_COLUMNS, "line")]
    faults += [f"{path}: column '{name}' {fault}" for name in covariates if (fault := _covariate_fault(name))]
    volumes: list[SheetRow] = []
    lines: dict[str, int] = {}
    for row in rows:
        place = f"{path} line {row['line']}"
        name = row["volume"]
        if fault := name_fault(name, "a file name"):
            faults.append(f"{place}: volume '{name}' {fault}")
            continue
        if name in lines:
            faults.append(f"{place}: volume '{name}' stands already in line {lines[name]}")
            continue
        lines[name] = row["line"]
        cells = {column: row.get(column, "") for column in SHEET_COLUMNS if column != "volume"}
        for column in ("image", "reference", "clicks"):
            cell = cells[column]
            if cell and (fault := path_fault(cell)):
                faults.append(f"{place}: {column} '{cell}' of volume '{name}' {fault}")
                cells[column] = ""
            elif column != "clicks" and _is_missing(cell, column == "image", skip_missing):
                faults.append(f"{place}: {column} '{cell}' of volume '{name}' does not exist")
        volumes.append(SheetRow(name, **cells, covariates={column: row[column] for column in covariates}))
    for name, earlier in same_but_for_case(lines):
        faults.append(
            f"{path} line {lines[name]}: volume '{name}' differs from '{earlier}' in line {lines[earlier]} only in "
            "case, and both become names of files; rename one"
        )
    if not rows and Path(path).is_file() and not any(fault.startswith(path) for fault in faults):
        faults.append(f"{path}: lists no volume; add rows, or make it with `{command}`")
    return volumes


def _covariate_fault(name: str) -> str:
    """What is wrong with the name of a column that is none of the sheet's own; empty if it can be a covariate."""
    if meant := suggestion(name, SHEET_COLUMNS):
        return f"is unknown{meant}"
    if not COVARIATE.fullmatch(name):
        return "is no name for a covariate: use letters, digits and _, and begin with a letter"
    if name in RESERVED:
        return "has the name of a column of the tables; choose another"
    return ""


def _is_missing(path: str, required: bool, skip_missing: bool) -> bool:
    """Whether a file that a row names is a fault of the row: with `skip_missing` only where the row has to name one."""
    return required if not path else not (skip_missing or os.path.exists(path))


def read_clicks(
    settings: Settings, volumes: Sequence[SheetRow], faults: list[str], files: Sequence[str] = ()
) -> list[Click]:
    """Read the study's table of clicks and the tables that single volumes name in the sample sheet.

    files: of the configuration, for the command that makes a table which is not there.
    """
    collect = " ".join(["volprompt clicks collect", *(f"--configfile {shlex.quote(file)}" for file in files)])
    clicks = read_click_table(settings.clicks, settings, None, faults, collect) if settings.clicks else []
    if clicks and not {click.volume for click in clicks} & {row.volume for row in volumes}:
        faults.append(
            f"{settings.clicks}: none of its volumes is in {settings.volumes}; found '{clicks[0].volume}', ..."
        )
    for volume in volumes:
        if volume.clicks:
            clicks += read_click_table(volume.clicks, settings, volume.volume, faults, collect)
    return clicks


def read_click_table(
    path: str, settings: Settings, volume: str | None, faults: list[str], collect: str = "volprompt clicks collect"
) -> list[Click]:
    """Read a clicks table: the study's, or that of one `volume`. What is wrong with it is added to `faults`.

    collect: the command that collects the study's clicks.
    """
    clicks: list[Click] = []
    required = {"structure", "slice", "x", "y"} | ({"volume"} if volume is None else set())
    command = f"{collect} --table {shlex.quote(path)}"
    for row in read_rows(path, separator(path, ","), required, {"volume", "label"}, faults, command):
        place = f"{path} line {row['line']}"
        structure = row["structure"]
        if structure not in settings.structures:
            faults.append(f"{place}: there is no structure '{structure}'{hint(structure, settings.structures)}")
        numbers = click_numbers(row["slice"], row["x"], row["y"])
        if numbers is None:
            faults.append(
                f"{place}: slice, x and y are '{row['slice']}', '{row['x']}', '{row['y']}'; expected a whole number "
                "and two numbers"
            )
            continue
        if numbers[0] < 0:
            faults.append(f"{place}: slice is {numbers[0]}; slices are counted from 0")
        label = row.get("label")
        if label not in (None, "0", "1"):
            faults.append(f"{place}: label is '{label}'; expected 1 for a positive click or 0 for a negative one")
            continue
        if volume in (None, row.get("volume") or volume):
            clicks.append(Click(volume or row["volume"], structure, *numbers, None if label is None else int(label)))
    return clicks


def click_numbers(slice_: str, x: str, y: str) -> tuple[int, float, float] | None:
    """Slice, x and y of a row, None if they are not a whole number and two finite ones; the slice 80.0 is 80."""
    try:
        index, *point = map(float, (slice_, x, y))
    except ValueError:
        return None
    # Python also reads 8_0 as 80.
    if "_" in slice_ + x + y or not (index.is_integer() and all(map(math.isfinite, point))):
        return None
    return int(index), point[0], point[1]
