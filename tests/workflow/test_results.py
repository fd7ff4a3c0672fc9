"""docs/results.md names every column of every table that a study writes."""

from __future__ import annotations

import re

import pandas as pd
import pyarrow.parquet as pq
from tests.workflow.small_study import REPOSITORY, Study

# Columns of the median table that belong to a structure: its name, and with these endings.
OF_STRUCTURE = re.compile(r"(femur|tibia|combined)(_low|_high|_bootstrap_low|_bootstrap_high|_iqr|_worst|_undefined)?")


def test_every_column_is_documented(finished: Study) -> None:
    documented = set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / "results.md").read_text()))
    results = finished.folder / "results"
    columns = {path: pq.read_schema(path).names for path in results.rglob("*.parquet")}
    columns |= {path: pd.read_csv(path, nrows=0).columns for path in results.rglob("tables/*.csv")}
    stages = {path.relative_to(results).parts[0] for path in columns}
    assert stages == {"volumes", "prompts", "masks", "scores", "tables"}
    missing = {
        str(path.relative_to(results)): absent
        for path, names in columns.items()
        if (absent := [name for name in names if name not in documented and not OF_STRUCTURE.fullmatch(name)])
    }
    assert missing == {}
