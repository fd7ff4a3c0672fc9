"""One way to log: everything to a file per job, what people have to see to the console, progress with the time left."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volprompt.errors import VolpromptError, is_lasting

logger = logging.getLogger("volprompt")

NOTICE = 25  # the level of results that belong on the console; below warnings, above what only the log file keeps
logging.addLevelName(NOTICE, "NOTICE")
PROGRESS_SECONDS = 60  # between two lines of progress of one job on the console
WARNINGS_SHOWN = 5  # warnings and errors of one job on the console
PROGRESS = {"progress": True}  # `extra` of a line that says how far a job is
ADDED_UP = {"added_up": True}  # `extra` of a notice that Snakemake's console shows once for all jobs
CLEAR_LINE = "\r\033[K"
# The last line of the log of a job that would fail again: whoever starts jobs need not try.
LASTING = "Not tried again: the job would end in the same way until something is changed"


@contextmanager
def logging_to(path: str | Path, label: str = "") -> Iterator[None]:
    """Send the library's log and Python's warnings to the file `path`; what a person has to see, to the console too.

    An error ends the process with status 1. An expected one is logged as its message alone, any other with its
    traceback; the last line says if the job would fail again, see `has_lasting_fault`. `label` stands before each
    console line, since jobs share the console.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_console = _console_handler(label)
    sources = (logger, logging.getLogger("py.warnings"))
    for source in sources:
        source.setLevel(logging.INFO)
        source.propagate = False
        source.addHandler(to_file)
    logger.addHandler(to_console)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        yield
    except Exception as error:
        _log_end(error)
        sys.exit(1)
    except KeyboardInterrupt:
        logger.error("Interrupted", extra={"ends_job": True})
        sys.exit(130)
    finally:
        logging.captureWarnings(False)
        for source in sources:
            source.removeHandler(to_file)
        logger.removeHandler(to_console)
        to_file.close()


def _log_end(error: Exception) -> None:
    """Log the error that ends a job, and whether another attempt would be in vain."""
    if isinstance(error, ModuleNotFoundError):
        packages = "a Python package is missing: %s. Install it into the environment of %s, and run again"
        logger.error(packages, error, sys.executable, extra={"ends_job": True})
    elif isinstance(error, VolpromptError):
        logger.error("%s", error, extra={"ends_job": True})
    else:
        logger.error("Unexpected error", exc_info=error, extra={"ends_job": True})
    if is_lasting(error):
        logger.info(LASTING)


def has_lasting_fault(path: str | Path) -> bool:
    """Whether the log of a job says that the job would fail again; False where there is no log."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(LASTING) - 1))
            return stream.read().decode(errors="replace").strip() == LASTING
    except OSError:
        return False


@contextmanager
def logging_to_console(label: str) -> Iterator[None]:
    """Send the library's log to the console, `label` before each line; for what runs outside of a job."""
    to_console = _console_handler(label)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(to_console)
    try:
        yield
    finally:
        logger.removeHandler(to_console)
        logger.setLevel(level)
        logger.propagate = propagate


def _console_handler(label: str) -> logging.Handler:
    """A handler for the console that all jobs share."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ConsoleFormatter(label, clear=sys.stderr.isatty()))
    handler.addFilter(_ConsoleFilter())
    return handler


class _ConsoleFormatter(logging.Formatter):
    """The message after its job's label, without a traceback: that is in the log file.

    clear: empty the line first, since a terminal's last line may hold a status that is rewritten in place.
    """

    def __init__(self, label: str, clear: bool) -> None:
        super().__init__()
        self.prefix = (CLEAR_LINE if clear else "") + (f"[{label}] " if label else "")

    def format(self, record: logging.LogRecord) -> str:
        text = self.prefix + record.getMessage()
        if record.exc_info and record.exc_info[1]:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]} (the traceback is in the job's log)"
        if getattr(record, "last_warning", False):
            text += " (further warnings are in the job's log)"
        return text


class _ConsoleFilter(logging.Filter):
    """Lets pass notices, the first warnings and errors of a job, what ends it, and its progress once a minute.

    Where VOLPROMPT_CONSOLE is `status`, Snakemake's console reads progress, what it adds up over jobs, and the error
    that ends a job from the log file, and shows them itself. Where VOLPROMPT_FAILED_LOGS is `shown`, it shows the whole
    log of a failed job.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = os.environ.get("VOLPROMPT_CONSOLE") == "status"
        self.end_is_shown = self.status or os.environ.get("VOLPROMPT_FAILED_LOGS") == "shown"
        self.progress_shown = time.monotonic()
        self.warnings = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "ends_job", False):
            return not self.end_is_shown
        if getattr(record, "added_up", False):
            return not self.status
        if getattr(record, "progress", False):
            due = not self.status and time.monotonic() - self.progress_shown >= PROGRESS_SECONDS
            self.progress_shown = time.monotonic() if due else self.progress_shown
            return due
        if record.levelno >= logging.WARNING:
            self.warnings += 1
            record.last_warning = self.warnings == WARNINGS_SHOWN
            return self.warnings <= WARNINGS_SHOWN
        return record.levelno >= NOTICE


class Progress:
    """Counts the volumes of a job and logs, after each, the rate and the time left."""

    def __init__(self, volumes: int) -> None:
        self.volumes = volumes
        self.done = 0
        self.started = time.monotonic()

    def step(self, volume: str, what: str) -> None:
        """Log that `volume` is done, with `what` was done to it."""
        self.done += 1
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.volumes - self.done)
        values = (self.done, self.volumes, volume, what, duration(left))
        logger.info("volume %d of %d, %s: %s; %s left", *values, extra=PROGRESS)


def duration(seconds: float) -> str:
    """Write a number of seconds as a person reads it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
