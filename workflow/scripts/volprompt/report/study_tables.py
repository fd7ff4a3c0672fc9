"""The study's tables as the report reads them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from volprompt.tables.stored import read_csv


class StudyTables:
    """The tables of the study; a table that is missing is empty."""

    def __init__(self, folder: Path) -> None:
        """Read the tables in a folder."""
        self.files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        self.scores = pd.read_parquet(folder / "scores.parquet")
        self.medians = read_csv(folder / "medians.csv").astype({"parameters": "Int64"})
        self.comparisons = self._read(folder / "comparisons.csv")
        self.ranks = self._read(folder / "ranks.csv")
        self.decay = self._read(folder / "decay.csv")
        self.propagation = self._read(folder / "propagation.csv")
        self.cost = self._read(folder / "cost.csv")
        self.failures = self._read(folder / "failures.csv")

    def _read(self, path: Path) -> pd.DataFrame:
        return read_csv(path) if path in self.files else pd.DataFrame()


def decay_milestones(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the decay table that the page shows: the prompted slice, and some distances from it."""
    if not len(table):
        return table
    return table[table["distance"].isin([0, 1, 5, 10, 20, 40, 80, 160])]
