"""Downloads of checkpoints: verified, and resumed where an earlier one broke off."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from pathlib import Path

import requests

from volprompt.checkpoints.catalogue import CatalogueEntry, CheckpointError, disguise_of, size_of
from volprompt.files import sha256_of
from volprompt.logs import PROGRESS, duration

logger = logging.getLogger("volprompt.checkpoints")

CHUNK_BYTES = 1 << 20
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 2.0


def fetch(entry: CatalogueEntry, file: str | Path, timeout: float = 60.0, attempts: int = 3) -> None:
    """Make `file` the catalogue's checkpoint: verify it if it is there, otherwise download it.

    The download grows in `<file>.part`, goes on where an earlier one broke off, and is renamed only with the
    right SHA-256. `timeout` is in seconds, for the connection and each wait for data; `attempts` counts the
    tries in a row that bring nothing new. Raises CheckpointError that says what is wrong and what to do.
    """
    file = Path(file)
    part = file.with_name(f"{file.name}.part")
    try:
        if file.exists():
            _verify(entry, file, "It was left as it is. Move it away to have it downloaded")
            return
        if entry.url is None:
            raise CheckpointError(f"{file} is missing; it comes with this repository: git checkout -- {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(entry, file, part, timeout, attempts)
        try:
            _verify(entry, part, f"It was deleted. Run again, place the file by hand at {file}")
        except CheckpointError:
            part.unlink()
            raise
        os.replace(part, file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be made: {error}. What was downloaded is kept.") from error


def _verify(entry: CatalogueEntry, path: Path, advice: str) -> None:
    found = sha256_of(path)
    if found != entry.sha256:
        what = disguise_of(path) or "another file"
        raise CheckpointError(
            f"{path} ({size_of(path)} bytes) is {what}, not what {entry.url or 'the catalogue'} says: "
            f"SHA-256 {found}, expected {entry.sha256}.\n{advice}, or correct the catalogue."
        )


def _download(entry: CatalogueEntry, file: Path, part: Path, timeout: float, attempts: int) -> None:
    """Fill `part`, asking again after broken connections, until `attempts` in a row brought nothing."""
    failures, furthest = 0, size_of(part)
    while True:
        try:
            _request_rest(entry, file, part, timeout)
            return
        except requests.RequestException as error:
            held = size_of(part)
            failures = 0 if held > furthest else failures + 1
            furthest = max(furthest, held)
            if failures >= attempts:
                reason = f"{attempts} tries in a row brought nothing ({error}); {held} bytes are kept"
                raise _unavailable(entry, file, reason) from error
            logger.warning("%s: %s; trying again with %d bytes kept", file.name, error, held)
        time.sleep(PAUSE_SECONDS * 2**failures)


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
        _check_answer(entry, file, response.status_code, total)
        total = entry.bytes if total is None else total
        _check_space(file, 0 if total is None else total - size_of(part))
        _save(response, part, held, total)
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


def _check_answer(entry: CatalogueEntry, file: Path, status: int, total: int | None) -> None:
    if status >= 500 or status in (408, 429):
        raise requests.HTTPError(f"the server answered HTTP {status}")
    if status not in (200, 206):
        raise _unavailable(entry, file, f"the server answered HTTP {status}")
    if total is not None and total != (entry.bytes or total):
        reason = f"the server offers {total} bytes, the catalogue expects {entry.bytes}"
        raise _unavailable(entry, file, reason)


def _check_space(file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise CheckpointError(
            f"{file} needs {needed / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free in {file.parent}: "
            "free some space, or choose another folder for checkpoints."
        )


def _save(response: requests.Response, part: Path, held: int, total: int | None) -> None:
    """Add the answer to the first `held` bytes of `part`, with a log line at most every 5 seconds."""
    first, began = held, time.monotonic()
    reported = began
    with open(part, "ab" if held else "wb") as stream:
        for chunk in response.iter_content(CHUNK_BYTES):
            stream.write(chunk)
            held += len(chunk)
            now = time.monotonic()
            if now - reported >= PROGRESS_SECONDS:
                reported = now
                state = _progress(held, total, (held - first) / (now - began))
                logger.info("%s: %s", part.stem, state, extra=PROGRESS)


def _progress(held: int, total: int | None, rate: float) -> str:
    """What there is of a download; sizes in bytes, rate in bytes per second."""
    if total is None:
        return f"{held / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s"
    done = f"{100 * held / total:.0f} %, {held / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{done}, {rate / 1e6:.1f} MB/s, {duration((total - held) / max(rate, 1))} left"


def _unavailable(entry: CatalogueEntry, file: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file.name} cannot be downloaded from {entry.url}: {reason}.\n"
        f"Get it on a machine with access and place it at {file} (SHA-256 {entry.sha256})."
    )
