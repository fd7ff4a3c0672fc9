"""One run at a time on a folder of results."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from volprompt.errors import VolpromptError
from volprompt.logs import logger

LOCK = ".lock"


class ResultsInUse(VolpromptError):
    """Another run writes to the same results."""


def lock_results(results: str | Path) -> FileLock | None:
    """Hold the results for this process, until the lock is released or the process ends, however it ends.

    Raises ResultsInUse, with node and process of the run that holds them. Where the file system has no locks, that is a
    warning and None is returned.
    """
    results = Path(results)
    results.mkdir(parents=True, exist_ok=True)
    # A mark that a file system without locks would be given instead would outlive a run that dies.
    # Once per process: a workflow that uses this one as a module may read its rules more than once.
    lock = FileLock(results / LOCK, timeout=0, mode=0o666, fallback_to_soft=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ResultsInUse(
            f"{results} is in use by another run ({_holder(results)}). Wait until it has ended, or give this study "
            "another folder with `results:`."
        ) from None
    except PermissionError:
        raise ResultsInUse(
            f"{results / LOCK} belongs to somebody else and cannot be opened ({_holder(results)}). If no run is "
            "going on there, delete it."
        ) from None
    except (OSError, NotImplementedError) as error:
        logger.warning(
            "%s cannot be locked (%s): nothing keeps a second run from writing to the same results", results, error
        )
        return None
    (results / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}, working in {Path.cwd()}\n")
    return lock


def _holder(results: Path) -> str:
    try:
        return (results / LOCK).read_text(encoding="utf-8").strip()
    except OSError:
        return "it has not said which"
