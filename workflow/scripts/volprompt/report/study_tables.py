"""The study's tables as the report reads them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from volprompt.files import read_table
from volprompt.tables.stored import read_csv


class StudyTables:
    """The tables of the study: `scores`, `medians`, and every other CSV table by its name."""

    def __init__(self, folder: Path) -> None:
        """Read scores and medians; the other tables are read when they are asked for."""
        self.folder = folder
        self.files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        self.scores = read_table(folder / "scores.parquet")
        self.medians = read_csv(folder / "medians.csv").astype({"parameters": "Int64"})
        self._read: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the table `{name}.csv`, empty if it is missing."""
        if name not in self._read:
            path = self.folder / f"{name}.csv"
            self._read[name] = read_csv(path) if path in self.files else pd.DataFrame()
        return self._read[name]
