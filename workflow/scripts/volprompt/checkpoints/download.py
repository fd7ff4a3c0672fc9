"""Downloads of checkpoints: verified, and resumed where an earlier one broke off."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from volprompt.checkpoints.catalogue import (
    HEAD_BYTES,
    CatalogueEntry,
    CheckpointError,
    CheckpointNotYet,
    disguise_of,
    disguise_of_bytes,
    size_of,
)
from volprompt.errors import with_causes
from volprompt.files import sha256_of
from volprompt.locks import alone_on
from volprompt.logs import PROGRESS, duration

logger = logging.getLogger("volprompt.checkpoints")

CHUNK_BYTES = 1 << 20  # at most; what has come is written at once, so that a broken line costs nothing
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 2.0
SPACE_BYTES = 1 << 26  # between two looks at the free space
# A line that brings less is as good as broken: the smallest checkpoint would take more than four hours.
FLOOR_BYTES_PER_SECOND = 10_000
FLOOR_SECONDS = 60.0
# A try that brought less than this has failed, or a line that breaks after each byte would be asked forever.
WORTH_BYTES = 1 << 16


def fetch(entry: CatalogueEntry, file: str | Path, timeout: float = 60.0, attempts: int = 3) -> None:
    """Make `file` the catalogue's checkpoint: verify it if it is there, otherwise download it.

    The download grows in `<file>.part`, goes on where an earlier one broke off, and is renamed only with the
    right SHA-256. Only one process downloads a file; another one waits for it, and then finds the file. `timeout` is
    in seconds, for the connection and each wait for data; `attempts` counts the tries in a row that bring next to
    nothing. Raises CheckpointError that says what is wrong and what to do.
    """
    file = Path(file)
    try:
        if not file.exists():
            if entry.url is None:
                raise CheckpointError(f"{file} is missing; it comes with this repository: git checkout -- {file}")
            file.parent.mkdir(parents=True, exist_ok=True)
            with alone_on(file):
                if not file.exists():  # another process may have fetched it meanwhile, and verified it
                    _fetch_alone(entry, file, timeout, attempts)
                    return
        _verify(entry, file, "It was left as it is. Move it away to have it downloaded")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be made: {error}. What was downloaded is kept.") from error


def _fetch_alone(entry: CatalogueEntry, file: Path, timeout: float, attempts: int) -> None:
    """Download and verify a file that no other process downloads."""
    part = file.with_name(f"{file.name}.part")
    if part.exists() and disguise_of(part):
        part.unlink()  # an earlier download of something else: nothing to go on from
    _download(entry, file, part, timeout, attempts)
    try:
        _verify(entry, part, f"It was deleted. Run again, place the file by hand at {file}")
    except CheckpointError:
        part.unlink()
        raise
    os.replace(part, file)


def _verify(entry: CatalogueEntry, path: Path, advice: str) -> None:
    found = sha256_of(path)
    if found != entry.sha256:
        what = disguise_of(path) or "another file"
        raise CheckpointError(
            f"{path} ({size_of(path)} bytes) is {what}, not what {entry.url or 'the catalogue'} says: "
            f"SHA-256 {found}, expected {entry.sha256}.\n{advice}, or correct the catalogue."
        )


def _download(entry: CatalogueEntry, file: Path, part: Path, timeout: float, attempts: int) -> None:
    """Fill `part`, asking again after broken connections, until `attempts` in a row brought next to nothing."""
    failures, furthest = 0, size_of(part)
    while True:
        try:
            _request_rest(entry, file, part, timeout)
            return
        except _TooSlow as slow:
            raise _too_slow(entry, file, size_of(part), slow.rate) from None
        except (requests.RequestException, HTTPError) as error:
            held = size_of(part)
            if held >= furthest + WORTH_BYTES:
                failures, furthest = 0, held
            else:
                failures += 1
            if failures >= attempts:
                kept = f"; {held} bytes are kept" if held else ""
                reason = f"{_in_words(error, entry)} ({attempts} tries in a row brought next to nothing{kept})"
                raise _unavailable(entry, file, reason) from error
            # Only in the log: what helps or fails after it is told.
            logger.info("%s: %s; trying again with %d bytes kept", file.name, _in_words(error, entry), held)
        time.sleep(PAUSE_SECONDS * 2**failures)


def _in_words(error: Exception, entry: CatalogueEntry) -> str:
    """Why a request failed: what the system says of the server, where the packages repeat the whole request."""
    host = urlsplit(str(entry.url)).hostname
    said = [each.strerror for each in with_causes(error, hidden=True) if isinstance(each, OSError) and each.strerror]
    if said:
        return f"{host}: {said[-1]}"
    return f"{host} does not answer" if isinstance(error, requests.Timeout) else str(error)


def _request_rest(entry: CatalogueEntry, file: Path, part: Path, timeout: float) -> None:
    """One request for the bytes that `part` lacks. RequestException: ask again. CheckpointError: do not."""
    held = size_of(part)
    if held and held == entry.bytes:
        return
    if entry.bytes is not None and held > entry.bytes:
        part.unlink()
        held = 0
    # Compressed transfer would make offsets and lengths those of another stream.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(str(entry.url), headers=headers, timeout=timeout, stream=True) as response:
        start, total = _extent(response)
        if response.status_code == 416 and held and total == held:
            return
        if response.status_code == 416 or (response.status_code == 206 and start != held):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"the server did not go on from byte {held}, starting again")
        held = held if response.status_code == 206 else 0
        _check_answer(entry, file, response, total)
        total = entry.bytes if total is None else total
        _check_space(file, 0 if total is None else total - size_of(part))
        _save(entry, file, response, part, held, total)
    if total is not None and size_of(part) < total:
        raise requests.ConnectionError(f"the connection ended at byte {size_of(part)} of {total}")


def _extent(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte of the answer and size of the whole file in bytes, as far as the server says."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    extent = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d+|\*)(?:-\d+)?/(\d+|\*)", extent)
    first, total = match.groups() if match else ("*", "*")
    return None if first == "*" else int(first), None if total == "*" else int(total)


def _check_answer(entry: CatalogueEntry, file: Path, response: requests.Response, total: int | None) -> None:
    status = response.status_code
    if status >= 500 or status in (408, 429):
        raise requests.HTTPError(f"the server answered HTTP {status}")
    if status not in (200, 206):
        raise _unavailable(entry, file, f"the server answered HTTP {status}")
    if "html" in response.headers.get("Content-Type", "").lower():
        raise _unavailable(entry, file, "the server answered with a web page (a log-in or error page, say)")
    if total is not None and total != (entry.bytes or total):
        disguise = disguise_of_bytes(response.raw.read1(HEAD_BYTES, decode_content=False))
        offer = f"offers {total} bytes, the catalogue expects {entry.bytes}"
        reason = f"the server {f'answered with {disguise}' if disguise else offer}"
        raise _unavailable(entry, file, reason)


def _check_space(file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise CheckpointError(
            f"{file} needs {needed / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free in {file.parent}: "
            "free some space, or choose another folder for checkpoints."
        )


def _save(
    entry: CatalogueEntry, file: Path, response: requests.Response, part: Path, held: int, total: int | None
) -> None:
    """Add the answer to the first `held` bytes of `part`, `total` in all, with a log line at most every 5 seconds.

    Raises CheckpointError for an answer that goes on beyond `total`, which deletes it, for one that is something else
    than a checkpoint, before anything is written, and for a disk that fills up meanwhile, which keeps what came.
    """
    pace = _Pace()
    pieces = _pieces(response, pace)
    first, checked = next(pieces, b""), held
    if held == 0 and (disguise := disguise_of_bytes(first)):
        raise _unavailable(entry, file, f"the server answered with {disguise}")
    with open(part, "ab" if held else "wb", buffering=0) as stream:
        for piece in chain([first], pieces):
            if total is not None and held + len(piece) > total:
                part.unlink()
                raise _unavailable(entry, file, f"the server sends more than the {total} bytes of the file")
            stream.write(piece)
            held += len(piece)
            if held - checked >= SPACE_BYTES:
                checked = held
                _check_space(file, SPACE_BYTES if total is None else total - held)
            if pace.is_due():
                logger.info("%s: %s", part.stem, _progress(held, total, pace.rate()), extra=PROGRESS)


def _pieces(response: requests.Response, pace: _Pace) -> Iterator[bytes]:
    """Give an answer as it comes, the first piece long enough to tell what it is. Raises _TooSlow."""
    # Taken as it was sent: unpacked, a small answer could become any number of bytes.
    pieces = iter(lambda: response.raw.read1(CHUNK_BYTES, decode_content=False), b"")
    head = b""
    for piece in pieces:
        pace.add(len(piece))
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    yield head
    for piece in pieces:
        pace.add(len(piece))
        yield piece


class _TooSlow(Exception):
    """An answer that comes with fewer bytes per second than it should; `rate` is that number."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate


class _Pace:
    """How fast an answer comes."""

    def __init__(self) -> None:
        self._began = self._reported = self._minute = time.monotonic()
        self._bytes = self._bytes_before = 0

    def add(self, count: int) -> None:
        """Count bytes that have come. Raises _TooSlow, looked at once a minute."""
        seconds = time.monotonic() - self._minute
        if seconds >= FLOOR_SECONDS:
            rate = (self._bytes + count - self._bytes_before) / seconds
            if rate < FLOOR_BYTES_PER_SECOND:
                raise _TooSlow(rate)
            self._minute, self._bytes_before = time.monotonic(), self._bytes + count
        self._bytes += count

    def rate(self) -> float:
        """Return bytes per second since the answer began."""
        return self._bytes / max(time.monotonic() - self._began, 1e-9)

    def is_due(self) -> bool:
        """Return whether it is time for a line of progress."""
        due = time.monotonic() - self._reported >= PROGRESS_SECONDS
        self._reported = time.monotonic() if due else self._reported
        return due


def _progress(held: int, total: int | None, rate: float) -> str:
    """What there is of a download; sizes in bytes, rate in bytes per second."""
    if total is None:
        return f"{held / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s"
    done = f"{100 * held / total:.0f} %, {held / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{done}, {rate / 1e6:.1f} MB/s, {duration((total - held) / max(rate, 1))} left"


def _unavailable(entry: CatalogueEntry, file: Path, reason: str) -> CheckpointNotYet:
    return CheckpointNotYet(
        f"{file.name} cannot be downloaded from {entry.url}: {reason}.\n"
        f"Get it on a machine with access and place it at {file} (SHA-256 {entry.sha256})."
    )


def _too_slow(entry: CatalogueEntry, file: Path, held: int, rate: float) -> CheckpointNotYet:
    whole = "" if entry.bytes is None else f" of {entry.bytes}"
    return CheckpointNotYet(
        f"{file.name} comes too slowly from {entry.url}: {rate / 1e3:.1f} kB/s, expected at least "
        f"{FLOOR_BYTES_PER_SECOND / 1e3:.0f} kB/s; {held}{whole} bytes are kept.\n"
        f"Run again to go on from there, or place the file at {file} (SHA-256 {entry.sha256})."
    )
