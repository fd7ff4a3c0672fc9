"""Files are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from volprompt.cells import as_cell, from_cell
from volprompt.files import atomic, read_start, table_metadata, write_csv, write_table, write_text
from volprompt.tables.stored import read_csv


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_the_name_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_left_of_a_block_that_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broke"), atomic(tmp_path / "table.csv") as temporary:  # noqa: PT012
        temporary.write_text("half of the cont")
        raise RuntimeError("broke")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_raises_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "earlier")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the cont")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_replaces_the_earlier_file(tmp_path: Path) -> None:
    write_text(tmp_path / "table.csv", "earlier")
    write_text(tmp_path / "table.csv", "später")
    assert (tmp_path / "table.csv").read_bytes() == "später".encode()


def test_compressed_names_keep_their_ending(tmp_path: Path) -> None:
    with atomic(tmp_path / "mask.nii.gz") as temporary:
        assert temporary.name.endswith("mask.nii.gz")
        temporary.touch()


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    os.umask(mask)
    write_text(tmp_path / "table.csv", "content")
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == mode
    assert os.umask(mask) == mask


def test_tables_with_metadata(tmp_path: Path) -> None:
    table = pd.DataFrame({"volume": ["a", "b"], "dice": [0.5, float("nan")]})
    write_table(table, tmp_path / "scores.parquet", {"schema_version": "1"})
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), table)
    assert table_metadata(tmp_path / "scores.parquet") == {"schema_version": "1"}
    write_table(table.iloc[1:], tmp_path / "part.parquet")
    assert table_metadata(tmp_path / "part.parquet") == {}
    assert pq.read_schema(tmp_path / "part.parquet").names == ["volume", "dice"]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *((text, text) for text in ("", "femur", "a=b", "-1", "+0.5", "-1e-3", ".5", "'", "'quoted'", "it's")),
        *((text, f"'{text}") for text in ("=1+1", "+1-2", "-x", "-inf", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "--", "=")),
        *((text, f"'{text}") for text in ("'=1", "''-x", "'-1")),
    ],
)
def test_no_cell_is_a_formula_and_each_comes_back(text: str, cell: str) -> None:
    assert as_cell(text) == cell
    assert from_cell(cell) == text


@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_tables_for_people_hold_no_formula_and_numbers_stay_numbers(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame(
        {
            "volume": ["a", None, "-x"],
            "reason": ['=HYPERLINK("http://a.example")', "fine", None],
            "model": [None, None, None],
            "difference": [-0.5, 1.0, float("nan")],
            "count": pd.array([-1, None, 2], dtype="Int64"),
        }
    )
    write_csv(table, tmp_path / name)
    between = "\t" if name.endswith("tsv") else ","
    plain = pd.read_csv(tmp_path / name, sep=between)
    assert plain["reason"][0] == "'" + table["reason"][0]
    assert plain["volume"][2] == "'-x"
    assert list(plain["difference"][:2]) == [-0.5, 1.0]
    assert plain["count"][0] == -1
    assert (tmp_path / name).read_text().splitlines()[2] == between.join(["", "fine", "", "1.0", ""])
    if between == ",":
        again = read_csv(tmp_path / name)
        assert again["reason"][0] == table["reason"][0]
        assert again["volume"][2] == "-x"
        assert again["model"].isna().all()
        assert again["difference"].dtype == float


def test_the_start_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    assert read_start(tmp_path / "file", 4) == b"abcd"
    assert read_start(tmp_path / "none") == read_start(tmp_path) == b""
    with pytest.raises(OSError, match="Input/output error"):  # no page of memory lies at address 0
        read_start("/proc/self/mem")
