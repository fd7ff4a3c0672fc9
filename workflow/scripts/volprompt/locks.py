"""One process at a time on a file that several of them may change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from volprompt.errors import VolpromptError
from volprompt.logs import NOTICE, logger


class FileInUse(VolpromptError):
    """A file that another process does not let go of."""

    may_heal = True


def lock_path(path: str | Path) -> Path:
    """Return the lock of a file: hidden, beside the file itself, so that every link to it has the same one.

    It stays when it is released, since a lock that is deleted can be held twice.
    """
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.lock")


@contextmanager
def alone_on(path: str | Path, timeout: float = -1) -> Iterator[None]:
    """Hold a file against every other process and thread that asks for it here, until the block or the process ends.

    timeout: seconds to wait for another holder; -1 waits as long as it takes.

    Raises FileInUse when the time is over, and OSError if the lock cannot be opened. On a file system without locks
    that is a warning, and the block runs all the same.
    """
    lock = _acquire(Path(path), timeout)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(path: Path, timeout: float) -> FileLock | None:
    place = lock_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place, mode=0o666, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.log(NOTICE, "%s is in use by another process; waiting for it", path)
            lock.acquire(timeout=timeout)
    except Timeout:
        raise FileInUse(
            f"{path} has been in use by another process for {timeout:.0f} s; expected it to be let go of. "
            "Try again, or end that process."
        ) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "filename", None) is not None:  # the lock's file cannot be opened; only flock names none
            raise
        logger.warning("%s cannot be locked (%s): nothing keeps another process from writing it too", path, error)
        return None
    return lock
