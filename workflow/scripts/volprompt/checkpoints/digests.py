"""Digests of local checkpoints' content, quick enough to ask for at every start."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from volprompt.checkpoints.catalogue import require_file
from volprompt.files import sha256_of, write_text

if TYPE_CHECKING:
    pass

logger = logging.getLogger("volprompt.checkpoints")


def content_digest(path: str | Path, memory: Path) -> str:
    """Digest (64 hexadecimal digits) of a local checkpoint's content, quick enough to ask for at every start.

    It tells whether the content changed; of a PyTorch archive it is not the file's SHA-256, since only the
    archive's directory is read: a touch or a new name changes nothing. The SHA-256 of any other format is
    remembered in the JSON file `memory` by path, size and time. Raises CheckpointError if there is no file.
    """
    path = require_file(path)
    return _archive_digest(path) or _remembered_sha256(path, Path(memory))


def _archive_digest(path: Path) -> str | None:
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


def _remembered_sha256(path: Path, memory: Path) -> str:
    """SHA-256 of a file, hashed only if size or time differ from those in `memory`, then remembered there."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    name, status = str(path.resolve()), path.stat()
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    row = known.get(name)
    digest = str(row.get("sha256")) if isinstance(row, dict) else ""
    if row == stamp | {"sha256": digest} and re.fullmatch("[0-9a-f]{64}", digest):
        return digest
    digest = sha256_of(path)
    try:
        write_text(memory, json.dumps({**known, name: stamp | {"sha256": digest}}, indent=1, sort_keys=True))
    except OSError as error:
        logger.warning("the digest of %s cannot be remembered: %s", path, error)
    return digest
