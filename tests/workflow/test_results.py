"""docs/results.md names every column of every table that a study writes."""

from __future__ import annotations

import re

import pandas as pd
import pyarrow.parquet as pq
from tests.workflow.small_study import REPOSITORY, Study

from volprompt.columns import STANDING_COLUMNS, STRUCTURE_COLUMNS, column_of

# Columns of the median table that belong to a structure; a test of the tables holds them to docs/results.md.
OF_STRUCTURES = {
    column_of(name, column.name)
    for name in ("femur", "tibia", "combined")
    for column in (*STRUCTURE_COLUMNS, *STANDING_COLUMNS)
}


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
        if (absent := [name for name in names if name not in documented and name not in OF_STRUCTURES])
    }
    assert missing == {}
