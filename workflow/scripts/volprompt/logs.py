"""One way to log: a file per job, the same lines on the console, and progress with the time left."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volprompt.errors import VolpromptError

logger = logging.getLogger("volprompt")


@contextmanager
def logging_to(path: str | Path, label: str = "") -> Iterator[None]:
    """Send the library's log and Python's warnings to the file `path` and to the console.

    An expected error is logged as its message alone and ends the process with status 1; any other error is logged with
    its traceback and raised again. `label` stands before each console line, since jobs share the console.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_console = logging.StreamHandler(sys.stderr)
    prefix = f"[{label}] " if label else ""
    to_console.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    handlers = (to_file, to_console)
    sources = (logger, logging.getLogger("py.warnings"))
    for source in sources:
        source.setLevel(logging.INFO)
        source.propagate = False
        for handler in handlers:
            source.addHandler(handler)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        yield
    except VolpromptError as error:
        logger.error("%s", error)
        sys.exit(1)
    except Exception:
        logger.exception("Unexpected error")
        raise
    finally:
        logging.captureWarnings(False)
        for source in sources:
            for handler in handlers:
                source.removeHandler(handler)
        to_file.close()


@contextmanager
def logging_to_console(label: str) -> Iterator[None]:
    """Send the library's log to the console, `label` before each line; for what runs outside of a job."""
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
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
        logger.info("volume %d of %d, %s: %s; %s left", self.done, self.volumes, volume, what, duration(left))


def duration(seconds: float) -> str:
    """Write a number of seconds as a person reads it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
