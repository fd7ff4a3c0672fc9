"""What a source on disk consists of: one file, a header with its data files, or a folder. Reads no voxels.

This module imports nothing heavy, since the workflow is planned with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from volprompt.files import read_start, sha256_of
from volprompt.identity import signature_of
from volprompt.volumes.images.formats import data_files


def is_dicom(path: str | Path) -> bool:
    """Return whether a file is one of DICOM; False for one that cannot be read.

    It has the mark of PS3.10 at byte 128; or it begins as data sets did before, without preamble: with an element of
    group 2 or 8 that has a representation of its value or a short length.
    """
    if not os.path.isfile(path):
        return False
    start = read_start(path, 132)
    if start[128:] == b"DICM":
        return True
    group, element, length = start[:2], start[2:4], start[4:8]
    explicit = length[:2] in (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"SH")
    return (
        len(start) == 132
        and group in (b"\2\0", b"\10\0")
        and element < b"\x20"
        and (explicit or length[1:] == b"\0\0\0")
    )


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder and its subfolders, sorted; symbolic links are followed.

    A folder that can be reached in several ways, by a link to a folder above it for example, is read once. Links that
    lead nowhere are listed, so that whoever reads them notices; pipes, sockets and devices are left out.
    """
    seen, files = {os.path.realpath(folder)}, []
    for place, folders, names in os.walk(folder, followlinks=True):
        new = {os.path.realpath(Path(place, name)): name for name in sorted(folders, reverse=True)}
        folders[:] = sorted(name for real, name in new.items() if real not in seen)
        seen |= new.keys()
        files += [Path(place, name) for name in names]
    return sorted(file for file in files if file.is_file() or not file.exists())


def parts_of(path: str | Path) -> list[Path]:
    """Return the files that make up a source: those below a folder, see `files_below`; or a file and its data."""
    path = Path(path)
    if path.is_dir():
        return files_below(path)
    return [path, *data_files(path)]


def placed(row: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Return a row of the sample sheet with the paths at which its image and reference lie for this job.

    places: path by that in the sheet, where the two differ.
    """
    return {**row, **{role: places.get(row[role], row[role]) for role in ("image", "reference")}}


def as_listed(text: str, row: Mapping[str, str], places: Mapping[str, str]) -> str:
    """Return a text about a row of the sample sheet with the paths that the sheet has, which outlive this job.

    places: as for `placed`.
    """
    for role in ("image", "reference"):
        text = text.replace(places.get(row[role], row[role]), row[role]) if row[role] else text
    return text


def sha256_of_source(path: str | Path) -> str:
    """Return the SHA-256 of a source, as 64 hexadecimal digits.

    The digest of a single file is that of its content. The digest of several files is that of their digests, joined by
    line feeds: in the order of their names, since a header says which part a data file holds; those of a folder sorted,
    so that it does not depend on names. Raises OSError if a file cannot be read.
    """
    parts = parts_of(path)
    digests = [sha256_of(part) for part in sorted(parts, key=lambda part: part.name)]
    if parts == [Path(path)]:
        return digests[0]
    if Path(path).is_dir():
        digests.sort()
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def signature_of_source(path: str | Path) -> str:
    """What tells whether a source was written to, see `identity.signature_of`; empty if it cannot be read."""
    try:
        return signature_of(parts_of(path), Path(path).parent)
    except (OSError, ValueError):
        return ""


def readable_sha256(path: str | Path) -> str:
    """SHA-256 of a source as in `sha256_of_source`; empty if it cannot be read."""
    try:
        return sha256_of_source(path)
    except OSError:
        return ""
