"""Whether a file has all the bytes that its header promises, told without reading voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isal import igzip, igzip_lib

from volprompt.volumes.images.image import BROKEN, VolumeError, damaged

# DEFLATE makes at most 258 bytes of two bits (RFC 1951).
LARGEST_RATIO = 1032
BROKEN_GZIP: Any = (*BROKEN, igzip_lib.IsalError)


def require_bytes(file: Path, expected: int, path: str) -> None:
    """Raise VolumeError if a file has fewer bytes than expected. path: the source that the file belongs to."""
    size = file.stat().st_size
    if size < expected:
        raise _cut_off(file, f"{size} bytes", expected, path)


def require_possible_bytes(file: Path, expected: int, path: str) -> None:
    """Raise VolumeError if a file compressed by DEFLATE cannot hold so many bytes, whatever is in it."""
    most = file.stat().st_size * LARGEST_RATIO
    if expected > most:
        raise _cut_off(file, f"at most {most} bytes unpacked", expected, path)


def require_unpacked_bytes(file: Path, expected: int, path: str) -> None:
    """Raise VolumeError if a gzip file unpacks to fewer bytes than expected. path: the source that it belongs to.

    The last four bytes of a gzip file are the size of what it unpacks to (RFC 1952), if it has one member. If they say
    something else, the file is unpacked to see.
    """
    require_possible_bytes(file, expected, path)
    with file.open("rb") as stream:
        stream.seek(-min(4, file.stat().st_size), 2)
        promised = int.from_bytes(stream.read(), "little")
    if promised == expected % 2**32:
        return
    unpacked = unpacked_size(file, path)
    if unpacked < expected:
        raise _cut_off(file, f"{unpacked} bytes unpacked", expected, path)


def unpacked_size(file: Path, path: str) -> int:
    """Decompress a whole gzip file, so that its checksum is verified, and return its size. Raises VolumeError.

    nibabel stops reading at the last voxel, before the checksum.
    """
    size = 0
    try:
        with igzip.open(file) as stream:
            while chunk := stream.read(2**22):
                size += len(chunk)
    except BROKEN_GZIP as error:
        raise damaged(path, error) from None
    return size


def _cut_off(file: Path, size: str, expected: int, path: str) -> VolumeError:
    prefix = "" if file == Path(path) else f"{file.name} has "
    return damaged(path, f"{prefix}{size}, {expected} expected")
