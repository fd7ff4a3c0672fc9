"""What the log of a job says: how many of its volumes are done, and how it ended."""

from __future__ import annotations

import os
import re
from pathlib import Path

TAIL_BYTES = 16_384
END_BYTES = 262_144
CLOCK_SECONDS = 1  # by which the clocks of files and of this process may differ
VOLUMES = re.compile(r"\bvolume (\d+) of (\d+)\b")
# Begins a line of a conversion, which goes on with `4 (2 volumes), 7 (1 volume)`.
LEFT_OUT = "Labels of the references that belong to no structure in use and are left out: "
LABEL = re.compile(r"(\d+) \((\d+) volumes?\)")
HEAD_OF_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) ")
UNEXPECTED = " ERROR Unexpected error"  # before a traceback, which what came before it may explain
LASTING = "Not tried again: "  # begins the line that follows the error of a job that would fail again


def last_lines(path: str, count: int, since: float = 0, most_bytes: int = TAIL_BYTES) -> list[str]:
    """Read the last lines of a text file, at most `count` and of at most `most_bytes`.

    There are none where the file cannot be read, or was last written before `since` (seconds since the epoch): the log
    of an earlier attempt stays until the job itself begins, which on a cluster may be hours after its submission.
    """
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < since - CLOCK_SECONDS:
                return []
            size = file.seek(0, 2)
            file.seek(max(size - most_bytes, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    if size > most_bytes:
        lines = lines[1:]  # the first one is cut
    return lines[-count:]


def how_it_ended(path: str, count: int, since: float = 0) -> list[str]:
    """The end of a log: where an expected error ended the job, that error alone, however long it is, such as a list of
    faults; else the last `count` lines, or more where the last error is longer.
    """
    lines = last_lines(path, END_BYTES, since, END_BYTES)
    errors = [
        number for number, line in enumerate(lines) if (head := HEAD_OF_LINE.match(line)) and " ERROR " in head[0]
    ]
    last = errors[-1] if errors else len(lines)
    if tells_its_end(lines) and UNEXPECTED not in lines[last]:
        return lines[last:]
    return lines[min(max(len(lines) - count, 0), last) :]


def volumes_done(lines: list[str]) -> tuple[int, int] | None:
    """How many volumes of a job are done, and of how many; None where its log does not say."""
    for line in reversed(lines):
        found = VOLUMES.search(line)
        if found:
            return int(found[1]), int(found[2])
    return None


def labels_left_out(lines: list[str]) -> dict[int, int]:
    """In how many volumes each label was left out, by label; empty where the log of a job does not say."""
    for line in reversed(lines):
        _, found, labels = line.partition(LEFT_OUT)
        if found:
            return {int(label): int(volumes) for label, volumes in LABEL.findall(labels)}
    return {}


def last_words(lines: list[str]) -> str:
    """The last line of a log without its time and level."""
    return HEAD_OF_LINE.sub("", lines[-1]) if lines else ""


def tells_its_end(lines: list[str]) -> bool:
    """Whether a job's log ends with the error that ended the job; that of a job that was killed breaks off."""
    heads = [(found[1], line[found.end() :]) for line in lines if (found := HEAD_OF_LINE.match(line))]
    return bool(heads) and (heads[-1][0] == "ERROR" or heads[-1][1].startswith(LASTING))
