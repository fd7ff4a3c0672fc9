"""The layout of plain folders: images and label maps, told apart by folders or by words in their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from volprompt.study.layouts.found import Found, LayoutError, Row, clean_name, given_folders
from volprompt.study.layouts.sources import dicom_sources, images_in, stem

# What names of label maps end in beyond the name of their volume, and what their folders are called.
MASKS = r"segmentation[._-]?masks?|segmentations?|masks?|label[._-]?maps?|labels?|segs?|gt|references?"
IMAGES = r"images?|imgs?|volumes?|mri?|0000"
MASK_WORDS = re.compile(rf"(?:^|[._-])(?:{MASKS})$", re.IGNORECASE)
IMAGE_WORDS = re.compile(rf"(?:^|[._-])(?:{IMAGES})$", re.IGNORECASE)
MASK_FOLDER = re.compile(rf"(?:{MASKS})(?:[._-]?t[rs])?", re.IGNORECASE)
IMAGE_FOLDER = re.compile(rf"(?:{IMAGES})(?:[._-]?t[rs])?", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """A file, or a folder of DICOM, by its name.

    subfolders: between the layout's folder and the file, without those that say `images` or `labels`.
    base: the name without ending and without such a word; empty for `image.nii` and `label.nii`.
    is_mask: whether it is a label map.
    """

    path: Path
    subfolders: tuple[str, ...]
    base: str
    is_mask: bool

    @property
    def name(self) -> str:
        """Name of the volume within the whole folder."""
        return "_".join(filter(None, (*self.subfolders, self.base)))

    @property
    def key(self) -> str:
        """What an image and its label map have in common."""
        return self.name.lower()

    @property
    def short(self) -> str:
        """Name of the volume where no other one has it."""
        return self.base or self.name or stem(self.path)


def folders(folders: Sequence[Path]) -> Found:
    """A folder of images and one of references, or one folder with both.

    The names are the same but for words such as _image, _label, .mask; in one folder these words, or subfolders such as
    images/ and labels/, tell label maps from images. Subfolders are read too. Images may also be folders or archives of
    DICOM. Without any such word there are no references.
    """
    if len(folders) not in (1, 2):
        raise LayoutError(f"found {len(folders)} folders; expected the folder of images and the folder of references")
    every = given_folders(folders, len(folders), "folders")
    first, last = every[0], every[-1]
    if first.resolve() == last.resolve():
        named = [_named(path, first) for path in _sources(first)]
        images = [one for one in named if not one.is_mask]
        masks = [one for one in named if one.is_mask]
        return _paired(images, masks, Found())
    found = Found()
    paths = [path for path in _sources(first) if not _is_inside(path, last, first)]
    # A name that ends in `_label` is that of an image, unless another image has the rest of it.
    told = [_named(path, first) for path in paths]
    keys = {one.key for one in told if not one.is_mask}
    left_over = {one.path for one in told if one.is_mask and one.key in keys}
    found.unmatched += [(path, "a label map in the folder of images") for path in sorted(left_over)]
    images = [_named(path, first, mask=False) for path in paths if path not in left_over]
    masks = [_named(path, last, mask=True) for path in images_in(last, recursive=True)]
    return _paired(images, [one for one in masks if not _is_inside(one.path, first, last)], found)


def _sources(folder: Path) -> list[Path]:
    return sorted({*images_in(folder, recursive=True), *dicom_sources(folder)} - {folder})


def _is_inside(path: Path, inner: Path, outer: Path) -> bool:
    """Whether a file of `outer` belongs to `inner`, a folder in it."""
    return inner.resolve().is_relative_to(outer.resolve()) and path.resolve().is_relative_to(inner.resolve())


def _named(path: Path, folder: Path, mask: bool | None = None) -> Named:
    """A file by its name. mask: whether it is a label map; None where name and folders have to say it."""
    parents = path.relative_to(folder).parts[:-1]
    full = stem(path)
    if mask is None:
        mask = any(MASK_FOLDER.fullmatch(part) for part in parents) or bool(MASK_WORDS.search(full))
    base = IMAGE_WORDS.sub("", MASK_WORDS.sub("", full) if mask else full)
    inner = (part for part in parents if not MASK_FOLDER.fullmatch(part) and not IMAGE_FOLDER.fullmatch(part))
    return Named(path, tuple(inner), base, mask)


def _paired(images: Sequence[Named], masks: Sequence[Named], found: Found) -> Found:
    """A row for each image, with its label map if exactly one fits."""
    fitting: dict[Path, list[Named]] = {one.path: [] for one in images}
    rest = list(masks)
    # By the whole name with subfolders, and where that finds none, by the file's own name if it is there once.
    for of in (lambda one: one.key, lambda one: one.short.lower()):
        free = [one for one in images if not fitting[one.path]]
        by_key = {of(one): one for one in free}
        often = {key for key, count in Counter(map(of, free)).items() if count > 1}
        for mask in list(rest):
            if of(mask) in by_key and of(mask) not in often:
                fitting[by_key[of(mask)].path].append(mask)
                rest.remove(mask)
    names = Counter(clean_name(one.short).lower() for one in images)
    for image in images:
        of_image = fitting[image.path]
        if len(of_image) > 1:
            found.unmatched += [
                (one.path, f"one of {len(of_image)} references of {image.path.name}") for one in of_image
            ]
        name = image.short if names[clean_name(image.short).lower()] == 1 else image.name
        found.rows.append(Row(clean_name(name), image.path, of_image[0].path if len(of_image) == 1 else None))
    found.unmatched += [(one.path, _why_left_over(one, images)) for one in rest]
    return found


def _why_left_over(mask: Named, images: Iterable[Named]) -> str:
    count = sum(mask.key == one.key for one in images)
    return f"{count or 'no'} image{'s' * (count > 1)} of its name; this label map is left over"
