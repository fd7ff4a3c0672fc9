"""Which errors another attempt cannot heal."""

from __future__ import annotations

import errno

import pytest
import torch

from volprompt.checkpoints.catalogue import CheckpointError, CheckpointNotYet
from volprompt.errors import VolpromptError, is_lasting, is_machine_fault, is_memory_fault
from volprompt.files import DamagedTable
from volprompt.identity import DamagedResult
from volprompt.models.devices import DeviceError, NoGpu


def caused(error: Exception, *causes: Exception) -> Exception:
    """An error that was raised because of another one, that because of the next, and so on."""
    first = error
    for cause in causes:
        error.__cause__ = cause
        error = cause
    return first


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (VolpromptError("max_failed_fraction"), True),
        (CheckpointError("does not fit"), True),
        (caused(CheckpointError("is no complete file"), RuntimeError("PytorchStreamReader failed")), True),
        (caused(CheckpointError("is no complete file"), EOFError()), True),
        (DeviceError("VOLPROMPT_JOBS_PER_GPU"), True),
        (ModuleNotFoundError("No module named 'sam2'"), True),
        (caused(VolpromptError("cannot be imported"), ModuleNotFoundError("No module named 'sam2'")), True),
        (caused(VolpromptError("cannot be imported"), ImportError("libcuda.so.1: cannot open")), False),
        (caused(CheckpointError("is no complete file"), MemoryError()), False),
        (caused(CheckpointError("is no complete file"), ValueError(), OSError("stale file handle")), False),
        (caused(CheckpointError("does not fit"), RuntimeError("CUDA error: an illegal memory access")), False),
        (CheckpointNotYet("cannot be downloaded"), False),
        (DamagedTable("is missing"), False),
        (DamagedResult("is not the result"), False),
        (NoGpu("torch finds no CUDA GPU here"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (MemoryError(), False),
        (OSError("No space left on device"), False),
        (KeyError("nobody expected this"), False),
    ],
    ids=repr,
)
def test_what_lasts(error: Exception, lasts: bool) -> None:
    assert is_lasting(error) is lasts


def test_what_led_to_an_error_counts_as_its_traceback_shows_it() -> None:
    error = VolpromptError("cannot be read")
    error.__context__ = OSError("stale file handle")  # raised while this one was handled
    assert not is_lasting(error)
    error.__suppress_context__ = True  # raised `from None`
    assert is_lasting(error)
    error.__context__ = OSError(errno.ESTALE, "stale file handle")  # that of a file server, whatever is shown of it
    assert not is_lasting(error)
    error.__context__ = FileNotFoundError(errno.ENOENT, "no such file")
    assert is_lasting(error)


def test_faults_of_the_machine() -> None:
    for text in ("CUDA error: out of memory", "can't allocate memory: you tried", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert is_memory_fault(RuntimeError(text))
        assert is_machine_fault(RuntimeError(text))
    assert is_memory_fault(RuntimeError("ITK ERROR: Failed to allocate memory for image"))
    assert is_machine_fault(OSError(errno.EIO, "Input/output error"))
    assert not is_machine_fault(PermissionError(errno.EACCES, "Permission denied"))
    assert is_machine_fault(RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"))
    assert not is_memory_fault(RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"))
    assert not is_machine_fault(RuntimeError("shapes differ"))
    assert not is_machine_fault(ValueError("out of memory"))
