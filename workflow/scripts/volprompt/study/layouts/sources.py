"""The images of a folder, as far as names show them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from volprompt.volumes.images.formats import ARCHIVE_ENDINGS, IMAGE_ENDINGS, ending_of
from volprompt.volumes.images.sources import files_below, is_dicom

# What names of label maps end in beyond the name of their volume, and what their folders are called.
MASKS = r"segmentation[._-]?masks?|segmentations?|masks?|label[._-]?maps?|labels?|segs?|gt|references?"
MASK_WORDS = re.compile(rf"(?:^|[._-])(?:{MASKS})$", re.IGNORECASE)
MASK_FOLDER = re.compile(rf"(?:{MASKS})(?:[._-]?t[rs])?", re.IGNORECASE)


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


def says_mask(path: Path, folder: Path) -> bool:
    """Whether the name of a file, or of a folder between it and `folder`, says that it is a label map."""
    parents = path.relative_to(folder).parts[:-1]
    return bool(MASK_WORDS.search(stem(path))) or any(MASK_FOLDER.fullmatch(part) for part in parents)


def images_and_masks(images_folder: Path, masks_folder: Path) -> tuple[list[Path], list[Path]]:
    """The images of one folder, DICOM too, and the label maps of another one, sorted.

    One folder may lie in the other. Of one that is named twice, names tell label maps from images.
    """
    images = sorted({*images_in(images_folder, recursive=True), *dicom_sources(images_folder)} - {images_folder})
    if images_folder == masks_folder:
        told = [(path, says_mask(path, images_folder)) for path in images]
        return [path for path, is_mask in told if not is_mask], [path for path, is_mask in told if is_mask]
    masks = images_in(masks_folder, recursive=True)
    return _without(images, masks_folder, images_folder), _without(masks, images_folder, masks_folder)


def _without(paths: list[Path], inner: Path, outer: Path) -> list[Path]:
    """The paths below `outer` without those that belong to `inner`, if that is a folder in it."""
    if not inner.resolve().is_relative_to(outer.resolve()):
        return paths
    return [path for path in paths if not path.resolve().is_relative_to(inner.resolve())]
