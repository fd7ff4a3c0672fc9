"""One run at a time on a folder of results."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from volprompt.study.lock import ResultsInUse, lock_results

HOLD = """
import sys, time
from volprompt.study.lock import lock_results
lock = lock_results(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_held_by_another_process_until_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ResultsInUse, match=rf"{tmp_path} is in use by another run \(process {other.pid} on .+\)"):
            lock_results(tmp_path)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    lock = lock_results(tmp_path)
    assert lock is not None
    lock.release()


def test_one_process_may_ask_twice(tmp_path: Path) -> None:
    first, second = lock_results(tmp_path), lock_results(tmp_path)
    assert first is second is not None
    first.release(force=True)


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with caplog.at_level(logging.WARNING, "volprompt"):
        assert lock_results(tmp_path) is None
    assert "cannot be locked" in caplog.text
