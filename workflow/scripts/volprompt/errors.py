"""Errors that a user can act on: their message is all that needs to be shown."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence

# What torch and ITK say in a plain RuntimeError where memory is short, and where a GPU does not work any more.
MEMORY_FAULTS = ("out of memory", "can't allocate memory", "Failed to allocate memory", "_ALLOC_FAILED")
GPU_FAULTS = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS")
# What an OSError says of a disk or a file server, rather than of the file.
DISK_FAULTS = ("EIO", "ESTALE", "ENOMEM", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EBUSY", "EAGAIN", "EINTR")
SERVER_FAULTS = ("EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "ECONNRESET", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH")


class VolpromptError(Exception):
    """Base of every expected error; its message names what was found, what was expected and what to do.

    may_heal: whether the same work may succeed a little later, or on another machine, with nothing changed by anyone.
    """

    may_heal = False


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or what kind of error it is where there is none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def suggestion(word: str, known: Iterable[str]) -> str:
    """End a message on an unknown word with the known one that was probably meant; empty if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def is_memory_fault(error: BaseException) -> bool:
    """Whether an error is a lack of memory, on the host or on the GPU."""
    return isinstance(error, MemoryError) or _says(error, MEMORY_FAULTS)


def is_machine_fault(error: BaseException) -> bool:
    """Whether an error is a lack of memory, or a fault of a disk, a file server or the GPU.

    torch has no class of its own for some of them.
    """
    name = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    on_disk = name in (*DISK_FAULTS, *SERVER_FAULTS)
    return on_disk or is_memory_fault(error) or _says(error, GPU_FAULTS)


def comes_from_the_machine(error: BaseException) -> bool:
    """Whether a fault of the machine led to an error, even one whose message leaves it out (`from None`)."""
    return any(is_machine_fault(each) for each in with_causes(error, hidden=True))


def is_lasting(error: BaseException) -> bool:
    """Whether the same work would end in the same way again, on every machine, until somebody changes something.

    So do expected errors and missing packages, unless they say otherwise or come from a fault of a disk, a network, a
    GPU or a lack of memory. Of errors that nobody expected this is not known: they do not count as lasting.
    """
    if not isinstance(error, VolpromptError | ModuleNotFoundError):
        return False
    return not comes_from_the_machine(error) and not any(_may_heal(each) for each in with_causes(error, hidden=False))


def _may_heal(error: BaseException) -> bool:
    if isinstance(error, ImportError):
        return not isinstance(error, ModuleNotFoundError)  # a library of the system that one machine lacks, say
    return isinstance(error, OSError) or getattr(error, "may_heal", False)


def with_causes(error: BaseException, hidden: bool) -> Iterator[BaseException]:
    """An error and those that led to it. hidden: also those that a traceback leaves out (`from None`)."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        shown = hidden or not cause.__suppress_context__
        cause = cause.__cause__ or (cause.__context__ if shown else None)


def _says(error: BaseException, faults: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in faults)
