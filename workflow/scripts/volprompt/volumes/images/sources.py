"""What a source on disk consists of: one file, a header with its data file, or a folder. Reads no voxels.

This module imports nothing heavy, since the workflow is planned with it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from volprompt.files import sha256_of

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# Headers that name a data file beside them, and the line that does.
DETACHED = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE),
}
HEADER_BYTES = 65536


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of an archive; what is inside is seen when it is opened."""
    return str(path).lower().endswith(ARCHIVES)


def is_dicom(path: str | Path) -> bool:
    """Whether a file has the mark of DICOM (PS3.10) at byte 128; one that cannot be read has not."""
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def data_file(path: str | Path) -> Path | None:
    """The data file that a header (.mhd, .nhdr) names, whether it exists or not; None for every other file.

    Lists and patterns of several data files are not followed.
    """
    pattern = DETACHED.get(Path(path).suffix.lower())
    if pattern is None or not Path(path).is_file():
        return None
    with open(path, "rb") as stream:
        found = pattern.search(stream.read(HEADER_BYTES))
    name = found[1].decode(errors="replace") if found else "LOCAL"
    if name.split()[0].upper() in ("LOCAL", "LIST") or "%" in name:
        return None
    return Path(path).parent / name


def parts_of(path: str | Path) -> list[Path]:
    """The files that make up a source, sorted: a folder's with those of its subfolders, or a header and its data."""
    path = Path(path)
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file())
    beside = data_file(path)
    return [path] if beside is None else [path, beside]


def sha256_of_source(path: str | Path) -> str:
    """SHA-256 of a source, as 64 hexadecimal digits.

    Of a single file it is that of its content. Of several it is that of their digests, sorted and joined by line feeds,
    so that it does not depend on the names of a folder's files. Raises OSError where a file cannot be read.
    """
    parts = parts_of(path)
    digests = sorted(sha256_of(part) for part in parts)
    if parts == [Path(path)]:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
