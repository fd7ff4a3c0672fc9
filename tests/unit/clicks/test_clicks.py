"""The clicks table in its file, and the authors' clicks brought to a sheet's volumes."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path

import pytest
from filelock import FileLock
from tests.unit.command_line import volprompt

from volprompt.clicks import table
from volprompt.clicks.authors import import_clicks, match, read_authors_table
from volprompt.clicks.table import ClickTable, ClickTableError, changing
from volprompt.locks import FileInUse
from volprompt.study.sheets import SheetRow

# Two knees of one visit, another subject, in the authors' layout.
TABLE = """subject,visit_date,series,structure,x,y
9000001,20050623,10929709,femur,157.214,115.24
9000001,20050623,10929709,patella,41.89,117.318
9000001,20050623,10929710,femur,10,20.5
9000002,20040607,10550809,femur,168.643,155.76
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("authors.csv").write_text(TABLE)
    return tmp_path


def matched(*volumes: SheetRow) -> dict[str, str | None]:
    """The series found for each volume."""
    found = match(volumes, read_authors_table("authors.csv"))
    return {one.volume: one.series.series if one.series else None for one in found}


def reason(*volumes: SheetRow) -> str:
    """Why the first volume has the series that it has, or none."""
    return match(volumes, read_authors_table("authors.csv"))[0].reason


def test_a_path_of_the_archive_matches_by_subject_date_and_series() -> None:
    left = SheetRow("left", "oai/0.C.2/9000001/20050623/10929709.tar.gz")
    right = SheetRow("right", "oai/0.C.2/9000001/20050623/10929710/001.dcm")
    assert matched(left, right) == {"left": "10929709", "right": "10929710"}
    assert reason(left) == "subject, date and series"


def test_a_name_or_a_group_with_the_subject_is_enough_where_it_decides() -> None:
    assert matched(SheetRow("9000002_image", "a.nii.gz")) == {"9000002_image": "10550809"}
    assert matched(SheetRow("a", "a.nii.gz", group="9000002")) == {"a": "10550809"}
    assert matched(SheetRow("a", "a.nii.gz", reference="masks/9000002.segmentation_masks.mhd")) == {"a": "10550809"}
    assert matched(SheetRow("a", "/home/20231231/9000002.nii.gz")) == {"a": "10550809"}  # a date before the subject


def test_a_subject_inside_a_longer_number_is_none() -> None:
    assert matched(SheetRow("a", "190000021.nii.gz")) == {"a": None}
    assert reason(SheetRow("a", "a.nii.gz")) == "no subject of the table in its name, group or paths"


def test_another_visit_or_series_of_the_subject_does_not_match() -> None:
    later = SheetRow("a", "9000002/20060607/10550809/")
    assert matched(later) == {"a": None}
    assert reason(later) == "is of 20060607; the clicks are on subject 9000002, 20040607, series 10550809"
    other = SheetRow("a", "9000002/20040607/10550811/")
    assert matched(other) == {"a": None}
    assert "is series 10550811" in reason(other)


def test_what_could_be_several_series_or_volumes_is_not_guessed() -> None:
    assert matched(SheetRow("a", "9000001_20050623.nii.gz")) == {"a": None}
    assert reason(SheetRow("a", "9000001_20050623.nii.gz")).startswith("may be any of: ")
    first, second = SheetRow("9000002_L", "l.nii.gz"), SheetRow("9000002_R", "r.nii.gz")
    assert matched(first, second) == {"9000002_L": None, "9000002_R": None}
    assert "fits 9000002_R as well" in reason(first, second)


def test_of_two_volumes_the_one_that_names_more_has_the_clicks() -> None:
    named, bare = SheetRow("named", "9000002/20040607/10550809"), SheetRow("9000002_again", "x.nii.gz")
    assert matched(bare, named) == {"9000002_again": None, "named": "10550809"}


def sheet(*rows: str) -> None:
    Path("volumes.tsv").write_text("\n".join(["volume\timage", *rows]) + "\n")
    for row in rows:
        Path(row.split("\t")[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(row.split("\t")[1]).touch()


def test_import_writes_the_clicks_on_slice_80_and_says_what_is_left() -> None:
    sheet("knee_1\t9000001/20050623/10929709.nii.gz", "knee_2\tother.nii.gz")
    said = import_clicks("authors.csv", "volumes.tsv", "clicks.csv")
    assert Path("clicks.csv").read_text() == (
        "volume,structure,slice,x,y\nknee_1,femur,80,157.214,115.24\nknee_1,patella,80,41.89,117.318\n"
    )
    assert "clicks.csv: 2 clicks added" in said
    assert "  1 volume matched by subject, date and series" in said
    assert "  knee_2: no subject of the table" in said
    assert "2 of the table's 3 series have no volume in volumes.tsv" in said


def test_import_keeps_what_the_table_has() -> None:
    sheet("knee_1\t9000001/20050623/10929709.nii.gz")
    Path("clicks.csv").write_text("volume,structure,slice,x,y\nmine,femur,3,1,2\nknee_1,femur,80,5.5,6\n")
    said = import_clicks("authors.csv", "volumes.tsv", "clicks.csv")
    assert "1 click added, 1 were there already" in said
    assert Path("clicks.csv").read_text().splitlines()[1:] == [
        "mine,femur,3,1,2",
        "knee_1,femur,80,5.5,6",
        "knee_1,patella,80,41.89,117.318",
    ]


def test_import_of_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    sheet("knee_1\tother.nii.gz")
    assert volprompt("clicks", "import", "authors.csv", "--volumes", "volumes.tsv", "--out", "clicks.csv") == 1
    assert "no volume matches a series of authors.csv" in capsys.readouterr().err
    assert not Path("clicks.csv").exists()


def test_a_faulty_authors_table_names_the_line() -> None:
    Path("authors.csv").write_text(TABLE + "9000003,20040607,10550899,femur,left,3\n")
    with pytest.raises(ClickTableError, match=r"authors.csv line 6: x and y are 'left', '3'; expected two numbers"):
        read_authors_table("authors.csv")


def test_rows_are_replaced_in_place_added_and_removed() -> None:
    Path("clicks.tsv").write_text(
        "volume\tstructure\tslice\tx\ty\na\tfemur\t4\t1.50\t2\nb\tfemur\t4\t1\t2\na\tfemur\t4\t9\t9\n"
    )
    table = ClickTable("clicks.tsv")
    assert table.of_volume("a") == {("femur", 4): (9, 9)}  # the last row counts
    table.put("b", "femur", 4, 3.25, 7.0)
    table.put("b", "tibia", 5, 0.1234567, -0.5)
    table.write()
    rows = list(csv.reader(Path("clicks.tsv").read_text().splitlines(), delimiter="\t"))[1:]
    assert rows == [
        ["a", "femur", "4", "1.50", "2"],  # untouched, as it was written
        ["b", "femur", "4", "3.25", "7"],
        ["a", "femur", "4", "9", "9"],
        ["b", "tibia", "5", "0.123", "-0.5"],
    ]
    table.put("a", "femur", 4, 2, 2)  # takes the place of both
    table.remove("b", "tibia", 5)
    assert [row["volume"] for row in table.rows] == ["b", "a"]


def test_a_table_of_another_form_is_an_error() -> None:
    Path("clicks.csv").write_text("volume,structure,x,y\n")
    with pytest.raises(ClickTableError, match="slice missing"):
        ClickTable("clicks.csv")
    Path("clicks.csv").write_text("volume,structure,slice,x,y\na,femur,4.5,1,2\n")
    with pytest.raises(ClickTableError, match=r"slice '4.5'"):
        ClickTable("clicks.csv").of_volume("a")


def test_the_papers_table(shared_data: Path) -> None:
    """Every one of the 488 series finds its volume in a sheet in the archive's layout."""
    table = shared_data / "clicks" / "oai_zib_slice80_clicks.csv"
    series = read_authors_table(table)
    assert len(series) == 488
    volumes = [SheetRow(f"knee_{i:03d}", f"oai/{s.subject}/{s.visit_date}/{s.series}") for i, s in enumerate(series)]
    assert [one.series for one in match(volumes, series)] == series
    by_subject = [SheetRow(s.subject, "image.nii.gz") for s in series]
    assert [one.series for one in match(by_subject, series)] == series
    assert series[0].clicks["patella"] == (41.89, 117.318)


def written(path: str) -> None:
    new = ClickTable(path)
    new.put("a", "femur", 4, 1, 2)
    new.write()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_table_stays_one(there: bool) -> None:
    Path("shared").mkdir()
    if there:
        Path("shared/table.csv").write_text("volume,structure,slice,x,y\n")
    Path("clicks.csv").symlink_to("shared/table.csv")
    written("clicks.csv")
    assert Path("clicks.csv").is_symlink()
    assert ClickTable("shared/table.csv").keys() == {("a", "femur", 4)}


def test_a_table_keeps_its_mode_and_a_new_one_has_the_umasks() -> None:
    before = os.umask(0o027)
    try:
        written("new.csv")
        Path("shared.csv").write_text("volume,structure,slice,x,y\n")
        Path("shared.csv").chmod(0o666)
        written("shared.csv")
    finally:
        os.umask(before)
    assert Path("new.csv").stat().st_mode & 0o777 == 0o640
    assert Path("shared.csv").stat().st_mode & 0o777 == 0o666


def test_a_table_is_on_the_disk_before_it_takes_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: happened.append("fsync"))
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append("replace"), replace(*paths))[1])
    written("clicks.csv")
    assert happened == ["fsync", "replace", "fsync"]  # the file, its new name, the folder


def test_a_table_that_is_held_is_waited_for_and_then_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with changing("clicks.csv"):
        monkeypatch.setattr(table, "LOCK_SECONDS", 0.1)
        with pytest.raises(FileInUse, match=r"clicks\.csv has been in use by another process"), changing("clicks.csv"):
            pass
    with changing("clicks.csv") as free:
        assert free.rows == []


def test_a_file_system_without_locks_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with caplog.at_level(logging.WARNING, "volprompt"), changing("clicks.csv") as held:
        held.put("a", "femur", 4, 1, 2)
        held.write()
    assert "cannot be locked" in caplog.text
    assert len(ClickTable("clicks.csv").rows) == 1


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("a,femur,nan,1,1", "expected a whole number"),
        ("a,femur,4.5,1,1", "expected a whole number"),
        ("a,femur,4,inf,1", "expected a whole number"),
        ("a,femur,4,1,nan", "expected a whole number"),
        ("a,femur,4,1,1,more", "line 2: has 6 cells, and the header 5"),
        (f"a,{'x' * 200_000},4,1,1", "line 2: a quote is opened and not closed"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: str, fault: str) -> None:
    Path("clicks.csv").write_text(f"volume,structure,slice,x,y\n{row}\n")
    with pytest.raises(ClickTableError, match=fault):
        ClickTable("clicks.csv").of_volume("a")


def test_no_text_of_a_table_becomes_a_formula() -> None:
    Path("clicks.csv").write_text("volume,structure,slice,x,y\n=1+1,-x,4,-0.25,-1\n'@b,femur,4,1,1\n")
    table = ClickTable("clicks.csv")
    assert [row["volume"] for row in table.rows] == ["=1+1", "@b"]
    table.write()
    assert Path("clicks.csv").read_text().splitlines()[1:] == ["'=1+1,'-x,4,-0.25,-1", "'@b,femur,4,1,1"]
    assert ClickTable("clicks.csv").rows == table.rows


@pytest.mark.parametrize("row", ["=cmd,1,1", "femur,nan,1", "femur,1,inf"])
def test_an_authors_table_gives_names_and_finite_numbers(row: str) -> None:
    Path("authors.csv").write_text(TABLE + f"9000003,20040607,10550899,{row}\n")
    with pytest.raises(
        ClickTableError, match=r"authors.csv line 6: (.* expected|structure '=cmd' becomes part of file names)"
    ):
        read_authors_table("authors.csv")
