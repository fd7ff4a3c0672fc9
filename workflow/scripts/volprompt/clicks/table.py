"""A clicks table that is added to and never loses a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from volprompt.errors import VolpromptError
from volprompt.files import separator, write_text
from volprompt.study.sheets import read_rows

COLUMNS = ("volume", "structure", "slice", "x", "y")

Key = tuple[str, str, str]  # volume, structure, slice


class ClickTableError(VolpromptError):
    """A clicks table that cannot be read, or clicks that fit no volume."""


class ClickTable:
    """A clicks table in a file: rows are put in, replaced and taken out by volume, structure and slice.

    Rows that are not touched keep their place and their text, whatever they say. Of several rows of one key the last
    one counts, as everywhere.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the table. A missing file is an empty table. Raises ClickTableError with every fault of its form."""
        self.path = Path(path)
        self.rows: list[dict[str, str]] = []
        faults: list[str] = []
        if self.path.exists():
            found = read_rows(str(path), separator(path, ","), set(COLUMNS), set(), faults)
            self.rows = [{name: row[name].strip() for name in COLUMNS} for row in found]
        if faults:
            raise ClickTableError("\n".join(faults))

    def of_volume(self, volume: str) -> dict[tuple[str, int], tuple[float, float]]:
        """(structure, slice) -> (x, y) of a volume's clicks."""
        found = {}
        for row in self.rows:
            if row["volume"] == volume:
                try:
                    found[row["structure"], int(row["slice"])] = float(row["x"]), float(row["y"])
                except ValueError:
                    raise ClickTableError(
                        f"{self.path}: a row of volume '{volume}' holds slice '{row['slice']}', x '{row['x']}', y "
                        f"'{row['y']}'; expected a whole number and two numbers. Correct or remove it."
                    ) from None
        return found

    def keys(self) -> set[Key]:
        """Volume, structure and slice of every row."""
        return {_key(row) for row in self.rows}

    def put(self, volume: str, structure: str, index: int, x: float, y: float) -> None:
        """Set a click: pixels of the frame, kept to a thousandth."""
        row = dict(zip(COLUMNS, (volume, structure, str(index), _number(x), _number(y)), strict=True))
        places = [place for place, old in enumerate(self.rows) if _key(old) == _key(row)]
        if not places:
            self.rows.append(row)
            return
        self.rows[places[-1]] = row
        for place in reversed(places[:-1]):
            del self.rows[place]

    def remove(self, volume: str, structure: str, index: int) -> None:
        """Take out a click, if there is one."""
        self.rows = [row for row in self.rows if _key(row) != (volume, structure, str(index))]

    def write(self) -> None:
        """Write the table to its file, atomically."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, delimiter=separator(self.path, ","), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _key(row: Mapping[str, str]) -> Key:
    return row["volume"], row["structure"], row["slice"]


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
