"""The image formats that are read: one ordered table. Whatever depends on a format is looked up here.

This module imports nothing heavy, since the workflow is planned with it. To add a format, see CONTRIBUTING.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

HEADER_BYTES = 65536
MAX_DATA_FILES = 10_000
END_OF_NRRD_HEADER = re.compile(rb"\r?\n\r?\n")
NRRD_DATA_FILE = re.compile(rb"^data ?file:[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
METAIMAGE_DATA_FILE = re.compile(rb"^ElementDataFile[ \t]*=[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE)
# A name with a number in it, then the first number, the last one and the step: slice%03d.raw 0 19 1.
PATTERN = re.compile(r"([^%]*%0?\d{0,2}d[^%]*?)\s+(\d+)\s+(\d+)(?:\s+(-?\d+))?(?:\s+\d+)?")


def no_data_files(path: Path) -> list[Path]:
    """Return nothing: the file in the sample sheet is all there is."""
    return []


def pair_data_files(path: Path) -> list[Path]:
    """Return the other file of an .hdr/.img pair, whichever of the two `path` is, and SPM's .mat file if there is one.

    SPM keeps the orientation of an Analyze image in the .mat file.
    """
    match = re.fullmatch(r"(.*\.)(hdr|img)(\.gz)?", path.name, re.IGNORECASE)
    assert match is not None, f"{path} is not named like a file of an .hdr/.img pair"
    stem, ending, compression = match.groups(default="")
    other, matrix = ("img" if ending.lower() == "hdr" else "hdr"), "mat"
    if ending.isupper():
        other, matrix = other.upper(), matrix.upper()
    matrix_file = path.with_name(f"{stem}{matrix}{compression}")
    return [path.with_name(f"{stem}{other}{compression}")] + ([matrix_file] if matrix_file.is_file() else [])


def nrrd_data_files(path: Path) -> list[Path]:
    """Return the data files that the header of an NRRD file names."""
    header = END_OF_NRRD_HEADER.split(_read_start(path), maxsplit=1)[0]
    return _named_files(path, header, NRRD_DATA_FILE.search(header))


def metaimage_data_files(path: Path) -> list[Path]:
    """Return the data files that the header of a MetaImage file names."""
    header = _read_start(path)
    return _named_files(path, header, METAIMAGE_DATA_FILE.search(header))


def _read_start(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _named_files(header_path: Path, header: bytes, match: re.Match[bytes] | None) -> list[Path]:
    """Return the files that a header line names, existing or not: one, those of a pattern, or a list that follows."""
    said = "LOCAL" if match is None else match[1].decode(errors="replace")
    kind = said.split()[0].upper()
    if match is None or kind == "LOCAL":
        return []
    if kind == "LIST":
        names = [line.strip() for line in header[match.end() :].decode(errors="replace").splitlines()]
    elif pattern := PATTERN.fullmatch(said):
        name, first, last, step = pattern[1], int(pattern[2]), int(pattern[3]), int(pattern[4] or 1) or 1
        stop = last + (1 if step > 0 else -1)
        names = [name % number for number in range(first, stop, step)[:MAX_DATA_FILES]]
    else:
        names = [said]
    return [header_path.parent / name for name in names if name]


@dataclass(frozen=True)
class Format:
    """An image format: how its sources are recognised, which files they consist of, and what reads them.

    name: what messages and documents call it.
    endings: of the file that the sample sheet names, in lower case.
    opener: address (`module:function`) of the function that reads a header and returns an `Image`, whose `verify`
        compares the sizes of the files with what the header promises. That of a format of series is a context manager
        which takes the path and the series.
    data_files: returns the further files that belong to the one in the sample sheet, existing or not.
    data_endings: of data files that the sample sheet may name in the header's place.
    header_endings: of those of the `endings` whose voxels are always in a data file.
    is_series: whether a source is a series of files, in a folder or in an archive with one of the `endings`, or one
        file of such a series with all of its planes, whatever its name.
    opens_elsewhere: whether ITK-SNAP and 3D Slicer open its file by name, on the grid that masks are written on. Both
        find the files of a DICOM series on their own, and may take another one of the folder; neither reads SPM's .mat
        files, and ITK-SNAP reads no MGH.
    """

    name: str
    endings: tuple[str, ...]
    opener: str
    data_files: Callable[[Path], list[Path]] = no_data_files
    data_endings: tuple[str, ...] = ()
    header_endings: tuple[str, ...] = ()
    is_series: bool = False
    opens_elsewhere: bool = False

    @property
    def in_words(self) -> str:
        """The format with what the sample sheet may name, as messages show it."""
        endings = ", ".join(("folder", *self.endings) if self.is_series else self.endings)
        return f"{self.name} ({endings}{' with ' + ', '.join(self.data_endings) if self.data_endings else ''})"

    def load_opener(self) -> Any:
        """Import the opener."""
        module, _, function = self.opener.partition(":")
        return getattr(import_module(module), function)


# In the order in which messages and documents list them. Of two endings that fit a name the longer one counts.
FORMATS = (
    Format("NIfTI", (".nii", ".nii.gz"), "volprompt.volumes.images.nifti:open_nifti", opens_elsewhere=True),
    Format(
        "NIfTI or Analyze pair",
        (".hdr", ".hdr.gz"),
        "volprompt.volumes.images.nifti:open_nifti",
        data_files=pair_data_files,
        data_endings=(".img", ".img.gz"),
        header_endings=(".hdr", ".hdr.gz"),
    ),
    Format("MGH", (".mgh", ".mgz"), "volprompt.volumes.images.nifti:open_mgh"),
    Format(
        "NRRD",
        (".nrrd", ".nhdr"),
        "volprompt.volumes.images.itk:open_nrrd",
        data_files=nrrd_data_files,
        header_endings=(".nhdr",),
        opens_elsewhere=True,
    ),
    Format(
        "MetaImage",
        (".mha", ".mhd"),
        "volprompt.volumes.images.itk:open_metaimage",
        data_files=metaimage_data_files,
        header_endings=(".mhd",),
        opens_elsewhere=True,
    ),
    Format(
        "DICOM series",
        (".zip", ".tar", ".tar.gz", ".tgz"),
        "volprompt.volumes.images.dicom.series:open_series",
        is_series=True,
    ),
)
FORMAT_OF_SERIES = next(known for known in FORMATS if known.is_series)
IMAGE_ENDINGS = tuple(ending for known in FORMATS if not known.is_series for ending in known.endings)
ARCHIVE_ENDINGS = tuple(ending for known in FORMATS if known.is_series for ending in known.endings)


def format_of(path: str | Path) -> Format | None:
    """Return the format of a source by its name, or that of series for a folder; None if it is not in the table."""
    if Path(path).is_dir():
        return FORMAT_OF_SERIES
    ending = ending_of(path)
    return next((known for known in FORMATS if ending in known.endings + known.data_endings), None)


def ending_of(path: str | Path) -> str:
    """Return the ending by which a file's format is recognised, in lower case; empty if it is not in the table."""
    name = Path(path).name.lower()
    fitting = [e for known in FORMATS for e in known.endings + known.data_endings if name.endswith(e)]
    return max(fitting, key=len, default="")


def is_split(path: str | Path) -> bool:
    """Return whether a source is by its name a header or the data file of one, with voxels and header in two files."""
    known, ending = format_of(path), ending_of(path)
    return known is not None and ending in known.header_endings + known.data_endings


def data_files(path: str | Path) -> list[Path]:
    """Return the further files that belong to a source, existing or not: none for a folder and for most files."""
    known = format_of(path)
    return [] if known is None else known.data_files(Path(path))


def formats_in_words() -> str:
    """List all that is read, for messages."""
    *first, last = (known.in_words for known in FORMATS)
    return f"{', '.join(first)} or {last}"
