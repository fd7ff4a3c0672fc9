"""Stamps are newer than the outputs that have to be made again, and older than all others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from volprompt.study.stamps import LONG_PAST, UnwritableResults, write_stamp


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of a result, with Snakemake's own file of its time, dated to the next day."""
    folder = tmp_path / "masks" / "000"
    folder.mkdir(parents=True)
    (folder / ".snakemake_timestamp").touch()
    later = time.time() + 86_400
    for path in (folder / ".snakemake_timestamp", folder):
        os.utime(path, (later, later))
    return folder


def newest(output: Path) -> float:
    return max(path.stat().st_mtime for path in (output, output / ".snakemake_timestamp"))


def test_newer_than_its_output_and_not_in_the_future(output: Path, tmp_path: Path) -> None:
    """Snakemake would end the run of a job whose stamp is newer than what the job has just made."""
    stamp = tmp_path / ".stamps" / "000"
    write_stamp(stamp, output, ["a mask is missing"])
    assert newest(output) < stamp.stat().st_mtime <= time.time()
    assert stamp.read_text().startswith("a mask is missing\n")


def test_newer_than_an_output_that_was_edited_just_now(tmp_path: Path) -> None:
    table, stamp = tmp_path / "000.parquet", tmp_path / ".stamps" / "000"
    for path in (table, table.with_suffix(".json")):
        path.touch()
    write_stamp(stamp, table, ["it was edited"])
    assert table.stat().st_mtime == table.with_suffix(".json").stat().st_mtime < stamp.stat().st_mtime <= time.time()


def test_newer_than_a_colleagues_output_in_the_future(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose time cannot be set."""
    stamp, set_time = tmp_path / ".stamps" / "000", os.utime

    def refuse(path: Path, *arguments: object, **settings: object) -> None:
        if output in (path, path.parent):
            raise PermissionError(1, "Operation not permitted")
        set_time(path, *arguments, **settings)

    monkeypatch.setattr(os, "utime", refuse)
    write_stamp(stamp, output, ["a mask is missing"])
    assert stamp.stat().st_mtime > newest(output) > time.time()


def test_what_is_intact_does_not_stay_in_the_future(output: Path, tmp_path: Path) -> None:
    """What is made from it would be older."""
    write_stamp(tmp_path / ".stamps" / "000", output, [])
    assert newest(output) <= time.time()


def test_old_where_there_is_no_fault_whoever_owns_it(output: Path, tmp_path: Path) -> None:
    """A time can be set by a file's owner alone, so that a colleague's stamp is replaced."""
    stamp = tmp_path / ".stamps" / "000"
    write_stamp(stamp, output, ["a mask is missing"])
    before = stamp.stat().st_ino
    write_stamp(stamp, output, [])
    assert stamp.stat().st_mtime == LONG_PAST
    assert stamp.stat().st_ino != before
    assert stamp.read_text() == ""


def test_a_folder_that_cannot_be_written_is_one_sentence(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(UnwritableResults, match=r"\.stamps cannot be written \(Permission denied\)"):
        write_stamp(tmp_path / ".stamps" / "000", output, ["a mask is missing"])
