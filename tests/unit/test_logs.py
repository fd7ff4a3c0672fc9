"""What a job writes to its log, and how it ends."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from volprompt.errors import VolpromptError
from volprompt.logs import (
    ADDED_UP,
    LASTING,
    NOTICE,
    WARNINGS_SHOWN,
    Progress,
    duration,
    has_lasting_fault,
    logger,
    logging_to,
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the loggers and the filters of warnings as they were."""
    sources = (logger, logging.getLogger("py.warnings"))
    before = [(source.level, source.propagate) for source in sources]
    with warnings.catch_warnings():
        yield
    for source, (level, propagate) in zip(sources, before, strict=True):
        source.setLevel(level)
        source.propagate = propagate


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "segment" / "000.log"


def test_the_file_holds_every_line_and_the_console_what_people_have_to_see(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(log, "convert 000"):
        logger.info("volume %s", "knee")
        logging.getLogger("volprompt.checkpoints").warning("slow")
        logger.log(NOTICE, "no fault")
    (first, second, third) = log.read_text().splitlines()
    assert first.endswith(" INFO volume knee")
    assert second.endswith(" WARNING slow")
    assert third.endswith(" NOTICE no fault")
    assert capsys.readouterr().err == "[convert 000] slow\n[convert 000] no fault\n"


def test_the_console_shows_the_first_warnings_of_a_job(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(log, "convert 000"):
        for number in range(WARNINGS_SHOWN + 3):
            logger.warning("warning %d", number)
        logger.log(NOTICE, "no fault")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == WARNINGS_SHOWN + 1
    assert lines[-3:] == [
        f"[convert 000] warning {WARNINGS_SHOWN - 2}",
        f"[convert 000] warning {WARNINGS_SHOWN - 1} (further warnings are in the job's log)",
        "[convert 000] no fault",
    ]
    assert log.read_text().count("WARNING") == WARNINGS_SHOWN + 3


@pytest.mark.parametrize(
    ("seconds", "console", "shown"), [(60, "plain", 0), (0, "plain", 3), (0, "status", 0)], ids=str
)
def test_progress_on_the_console(
    seconds: int,
    console: str,
    shown: int,
    log: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("volprompt.logs.PROGRESS_SECONDS", seconds)
    monkeypatch.setenv("VOLPROMPT_CONSOLE", console)
    with logging_to(log):
        logger.log(NOTICE, "added up over the jobs", extra=ADDED_UP)
        assert len(capsys.readouterr().err.splitlines()) == (console == "plain")
        progress = Progress(3)
        for volume in ("a", "b", "c"):
            progress.step(volume, "done")
    assert len(capsys.readouterr().err.splitlines()) == shown
    assert len(log.read_text().splitlines()) == 4


def test_an_expected_error_is_its_message_alone(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logging_to(log):
        raise VolpromptError("knee.nii: no such file")
    assert ended.value.code == 1
    first, last = log.read_text().splitlines()
    assert first.endswith(" ERROR knee.nii: no such file")
    assert last.endswith(f" INFO {LASTING}")
    assert has_lasting_fault(log)
    assert capsys.readouterr().err == "knee.nii: no such file\n"


def test_any_other_error_is_logged_with_its_traceback(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logging_to(log):
        _ = 1 / 0
    assert ended.value.code == 1
    text = log.read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: division by zero" in text
    assert not has_lasting_fault(log)
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown == "Unexpected error: ZeroDivisionError: division by zero (the traceback is in the job's log)"


def test_a_missing_package_is_named_without_a_traceback(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logging_to(log):
        import_module("package_of_nobody")
    assert ended.value.code == 1
    assert has_lasting_fault(log)
    shown = capsys.readouterr().err
    assert shown.startswith("a Python package is missing: No module named 'package_of_nobody'. Install it into ")
    assert sys.executable in shown
    assert "Traceback" not in log.read_text()


def test_the_last_line_alone_says_that_a_fault_lasts(log: Path) -> None:
    assert not has_lasting_fault(log)
    log.parent.mkdir(parents=True)
    for text, lasts in (
        ("", False),
        (f"{LASTING}\n", True),
        (f"x INFO {LASTING}\n", True),
        (f"{LASTING}\nnext\n", False),
    ):
        log.write_text(text)
        assert has_lasting_fault(log) is lasts, text


def test_an_interrupted_job_ends_without_a_traceback(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logging_to(log):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert log.read_text().endswith(" ERROR Interrupted\n")
    assert capsys.readouterr().err == "Interrupted\n"


@pytest.mark.parametrize("reader", [{"VOLPROMPT_CONSOLE": "status"}, {"VOLPROMPT_FAILED_LOGS": "shown"}], ids=str)
def test_a_console_that_reads_the_log_is_not_told_the_error_twice(
    reader: dict[str, str], log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in reader.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit), logging_to(log):
        raise VolpromptError("knee.nii: no such file")
    assert capsys.readouterr().err == ""
    assert " ERROR knee.nii: no such file\n" in log.read_text()


def test_warnings_of_other_packages_are_logged(log: Path) -> None:
    with logging_to(log):
        warnings.warn("the header is odd", UserWarning, stacklevel=1)
    assert "the header is odd" in log.read_text()


def test_a_second_run_starts_a_new_log(log: Path) -> None:
    for text in ("first", "second"):
        with logging_to(log):
            logger.info(text)
    assert "first" not in log.read_text()
    assert log.read_text().count("second") == 1


def test_nothing_is_logged_after_the_end(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(log):
        pass
    logger.info("late")
    assert log.read_text() == ""
    assert capsys.readouterr().err == ""
    assert logger.handlers == []


def test_progress(log: Path) -> None:
    with logging_to(log):
        progress = Progress(2)
        progress.step("a", "160 slices")
        progress.step("b", "FAILED: no such file")
    first, second = log.read_text().splitlines()
    assert first.endswith("volume 1 of 2, a: 160 slices; 0 s left")
    assert second.endswith("volume 2 of 2, b: FAILED: no such file; 0 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (8.6, "9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
