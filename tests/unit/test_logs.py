"""What a job writes to its log, and how it ends."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from volprompt.errors import VolpromptError
from volprompt.logs import Progress, duration, logger, logging_to


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


def test_lines_go_to_the_file_and_to_the_console(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(log, "convert 000"):
        logger.info("volume %s", "knee")
        logging.getLogger("volprompt.checkpoints").warning("slow")
    (first, second) = log.read_text().splitlines()
    assert first.endswith(" INFO volume knee")
    assert second.endswith(" WARNING slow")
    assert capsys.readouterr().err == "[convert 000] volume knee\n[convert 000] slow\n"


def test_an_expected_error_is_its_message_alone(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logging_to(log):
        raise VolpromptError("knee.nii: no such file")
    assert ended.value.code == 1
    assert log.read_text().endswith(" ERROR knee.nii: no such file\n")
    assert "Traceback" not in log.read_text()
    assert capsys.readouterr().err == "knee.nii: no such file\n"


def test_any_other_error_is_logged_with_its_traceback(log: Path) -> None:
    with pytest.raises(ZeroDivisionError), logging_to(log):
        _ = 1 / 0
    text = log.read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: division by zero" in text


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
