"""Digests of local checkpoints' content, quick enough to ask for at every start."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from volprompt.checkpoints.shards import weight_files
from volprompt.files import sha256_of
from volprompt.identity import signature_of
from volprompt.remembered import DigestMemory


def content_digest(path: str | Path, memory: DigestMemory) -> str:
    """Digest (64 hexadecimal digits) of a local checkpoint's content, quick enough to ask for at every start.

    It tells whether the content changed; of a PyTorch archive it is not the file's SHA-256, since only the archive's
    directory is read: a touch or a new name changes nothing. For any other format it is the SHA-256, which is
    remembered. Raises CheckpointError if there is no file.
    """
    first, *shards = weight_files(path)
    if shards:
        return _digest_of_all(remembered_sha256(file, memory) for file in [first, *shards])
    return archive_digest(first) or remembered_sha256(first, memory)


def sha256_of_weights(path: str | Path) -> str:
    """SHA-256 of a checkpoint's file; of several files that of their sums."""
    first, *shards = weight_files(path)
    return _digest_of_all(map(sha256_of, [first, *shards])) if shards else sha256_of(first)


def _digest_of_all(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def archive_digest(path: Path) -> str | None:
    """Digest of a PyTorch archive's directory; None for other files, and for archives without CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error):
        return None
    rows = sorted((member.filename.partition("/")[2], member.CRC, member.file_size) for member in members)
    # torch can be told to save without CRC-32; it then writes zeros, which say nothing about the content.
    if not any(name == "data.pkl" and crc for name, crc, _ in rows):
        return None
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def remembered_sha256(path: Path, memory: DigestMemory) -> str:
    """SHA-256 of a file; it is hashed only if the file was written to since its digest was remembered."""
    return memory.digest(str(path.resolve()), signature_of([path], path.parent), lambda: sha256_of(path))
