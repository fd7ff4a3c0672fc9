"""Stamps are newer than the outputs that have to be made again, and older than all others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from volprompt.study.stamps import LONG_PAST, UnwritableResults, write_stamp


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of a result, dated to the next day."""
    folder = tmp_path / "masks" / "000"
    (folder / "point").mkdir(parents=True)
    (folder / "point" / "a.nii.gz").touch()
    later = time.time() + 86_400
    os.utime(folder / "point" / "a.nii.gz", (later, later))
    return folder


def test_newer_than_its_output_even_where_that_lies_in_the_future(output: Path, tmp_path: Path) -> None:
    stamp = tmp_path / ".stamps" / "000"
    write_stamp(stamp, output, ["a mask is missing"])
    assert stamp.stat().st_mtime > (output / "point" / "a.nii.gz").stat().st_mtime
    assert stamp.read_text().startswith("a mask is missing\n")


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
