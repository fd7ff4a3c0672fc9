"""A clicks table that is added to and never loses a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from volprompt.cells import as_cell
from volprompt.errors import VolpromptError
from volprompt.files import replace_text, separator
from volprompt.locks import alone_on
from volprompt.study.sheets import click_numbers, read_rows

COLUMNS = ("volume", "structure", "slice", "x", "y")
# A change takes milliseconds; who holds a table for longer has been stopped.
LOCK_SECONDS = 30

Point = tuple[float, float]  # (x, y), pixels of the frame
ClickKey = tuple[str, int]  # structure, slice
RowKey = tuple[str, str, float | str]  # volume, structure, slice; the slice as a number, if it is one


class ClickTableError(VolpromptError):
    """A clicks table that cannot be read, or clicks that fit no volume."""


class ClickTable:
    """A clicks table in a file: rows are added, replaced and removed by volume, structure and slice.

    Other rows keep their place and their text. If there are several rows of one key, the last one counts.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the table. A missing file is an empty table. Raises ClickTableError with every fault of its form."""
        self.path = Path(path)
        self.rows: list[dict[str, str]] = []
        faults: list[str] = []
        if self.path.exists():
            rows = read_rows(str(path), separator(path, ","), set(COLUMNS), set(), faults)
            self.rows = [{name: row[name].strip() for name in COLUMNS} for row in rows]
        if faults:
            raise ClickTableError("\n".join(faults))

    def of_volume(self, volume: str) -> dict[ClickKey, Point]:
        """Return a volume's clicks. Raises ClickTableError for a row without numbers."""
        clicks = {}
        for row in self.rows:
            if row["volume"] == volume:
                numbers = click_numbers(row["slice"], row["x"], row["y"])
                if numbers is None:
                    raise ClickTableError(
                        f"{self.path}: a row of volume '{volume}' holds slice '{row['slice']}', x '{row['x']}', y "
                        f"'{row['y']}'; expected a whole number and two numbers. Correct or remove it."
                    )
                clicks[row["structure"], numbers[0]] = numbers[1:]
        return clicks

    def keys(self) -> set[RowKey]:
        """Return volume, structure and slice of every row."""
        return {_row_key(row) for row in self.rows}

    def put(self, volume: str, structure: str, index: int, x: float, y: float) -> None:
        """Set a click. x, y: pixels of the frame, kept to a thousandth."""
        row = dict(zip(COLUMNS, (volume, structure, str(index), _as_text(x), _as_text(y)), strict=True))
        places = [place for place, old in enumerate(self.rows) if _row_key(old) == _row_key(row)]
        if not places:
            self.rows.append(row)
            return
        self.rows[places[-1]] = row
        for place in reversed(places[:-1]):
            del self.rows[place]

    def remove(self, volume: str, structure: str, index: int) -> None:
        """Remove a click, if there is one."""
        self.rows = [row for row in self.rows if _row_key(row) != (volume, structure, index)]

    def write(self) -> None:
        """Write the table to its file, atomically; a link to it and its mode stay."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, delimiter=separator(self.path, ","), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: as_cell(text) for name, text in row.items()} for row in self.rows)
        replace_text(self.path, text.getvalue())


@contextmanager
def changing(path: str | Path) -> Iterator[ClickTable]:
    """Give a table as it is now, while no other process changes it, for the block to change and to write.

    Raises ClickTableError as reading does, and FileInUse if another process does not let go of the table.
    """
    with alone_on(path, LOCK_SECONDS):
        yield ClickTable(path)


def _row_key(row: Mapping[str, str]) -> RowKey:
    try:
        return row["volume"], row["structure"], float(row["slice"])
    except ValueError:
        return row["volume"], row["structure"], row["slice"]


def _as_text(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
