"""The images of a folder, as far as names show them."""

from __future__ import annotations

import os
from pathlib import Path

from volprompt.volumes.images.formats import ARCHIVE_ENDINGS, IMAGE_ENDINGS, ending_of
from volprompt.volumes.images.sources import files_below, is_dicom


def stem(path: Path) -> str:
    """A file's name without the ending of its format."""
    return path.name[: len(path.name) - len(ending_of(path))]


def images_in(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files below a folder, sorted, without hidden ones. Of a header with a data file the header is listed."""
    found = files_below(folder) if recursive else folder.iterdir()
    return sorted(path for path in found if ending_of(path) in IMAGE_ENDINGS and path.name[0] != ".")


def dicom_sources(folder: Path) -> list[Path]:
    """Archives, and the folders that hold DICOM files, told by their mark."""
    found = []
    for parent, names, files in os.walk(folder):
        names.sort()
        here = sorted(files)
        found += [Path(parent, name) for name in here if ending_of(name) in ARCHIVE_ENDINGS]
        known = ARCHIVE_ENDINGS + IMAGE_ENDINGS
        plain = [name for name in here if ending_of(name) not in known and name[0] != "."]
        if any(is_dicom(Path(parent, name)) for name in plain[:5]):
            found.append(Path(parent))
    return sorted(found)
