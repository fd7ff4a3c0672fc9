"""The files of a folder or an archive, and the names that messages give them."""

from __future__ import annotations

import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from volprompt.volumes.images.image import VolumeError, damaged
from volprompt.volumes.images.sources import is_dicom, parts_of

# Far beyond any series of slices: an archive that holds more is not unpacked.
MAX_FILES = 20_000
MAX_BYTES = 8 * 2**30
CHUNK = 2**20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)


@dataclass(frozen=True)
class Member:
    """A file: its name in the folder or archive, and where it can be read."""

    name: str
    path: Path


@contextmanager
def members_of(path: str) -> Iterator[list[Member]]:
    """Give a DICOM file or the files of a folder where they are, or those of an archive, unpacked until the block ends.

    Unpacked files get numbers for names in a temporary folder: no name from the archive becomes a path. Links, devices
    and empty files are left out. Raises VolumeError for an archive that is damaged, encrypted or
    larger than MAX_FILES and MAX_BYTES.
    """
    if is_dicom(path):
        yield [Member(Path(path).name, Path(path))]
        return
    if Path(path).is_dir():
        parts = parts_of(path)
        if astray := [part for part in parts if part.is_symlink() and not part.exists()]:
            names = ", ".join(str(part.relative_to(path)) for part in astray[:3])
            raise VolumeError(
                path,
                f"holds {len(astray)} links that lead nowhere: {names}",
                remedy="Copy the files that they stand for, or remove the links",
            )
        if len(parts) > MAX_FILES:
            raise VolumeError(path, f"the folder holds {len(parts)} files", f"one series, at most {MAX_FILES} files")
        yield [Member(str(part.relative_to(path)), part) for part in parts]
        return
    with tempfile.TemporaryDirectory(prefix="volprompt-") as folder:
        yield list(_unpack(path, Path(folder)))


def _unpack(path: str, folder: Path) -> Iterator[Member]:
    """Unpack an archive into `folder`, file by file. Raises VolumeError as `members_of` does."""
    streams = _open_zip_entries(path) if path.lower().endswith(".zip") else _open_tar_entries(path)
    room = MAX_BYTES
    number = 0
    while True:
        try:
            name, stream = next(streams)
        except StopIteration:
            return
        except BROKEN as error:
            raise damaged(path, error) from None
        number += 1
        if number > MAX_FILES:
            raise VolumeError(path, f"the archive holds more than {MAX_FILES} files", "one series")
        target = folder / f"{number:06d}.dcm"
        with target.open("wb") as out:
            while True:
                try:
                    chunk = stream.read(CHUNK)
                except BROKEN as error:
                    raise damaged(path, error) from None
                if not chunk:
                    break
                room -= len(chunk)
                if room < 0:
                    raise VolumeError(path, f"the archive unpacks to more than {MAX_BYTES / 2**30:g} GiB", "one series")
                out.write(chunk)
        yield Member(name, target)


def _open_zip_entries(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not entry.file_size:
                continue
            if entry.flag_bits & 1:
                raise VolumeError(path, "the archive is encrypted", remedy="Unpack it with its password")
            try:
                stream = archive.open(entry)
            except NotImplementedError:
                raise VolumeError(path, "the archive's compression is not supported", remedy="Unpack it") from None
            with stream:
                yield entry.filename, stream


def _open_tar_entries(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            stream = archive.extractfile(entry) if entry.isreg() and entry.size else None
            if stream is not None:
                with stream:
                    yield entry.name, stream
