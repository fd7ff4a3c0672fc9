"""The layout of plain folders: images and label maps, told apart by folders or by words in their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from volprompt.study.layouts.found import Found, LayoutError, Row, clean_name, given_folders
from volprompt.study.layouts.sources import MASK_FOLDER, MASK_WORDS, images_and_masks, says_mask, stem

IMAGES = r"images?|imgs?|volumes?|mri?|0000"
IMAGE_WORDS = re.compile(rf"(?:^|[._-])(?:{IMAGES})$", re.IGNORECASE)
IMAGE_FOLDER = re.compile(rf"(?:{IMAGES})(?:[._-]?t[rs])?", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """A file, or a folder of DICOM, by its name.

    subfolders: between the layout's folder and the file, without those that say `images` or `labels`.
    base: the name without ending and without such a word; empty for `image.nii` and `label.nii`.
    """

    path: Path
    subfolders: tuple[str, ...]
    base: str

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
    images, masks = images_and_masks(first, last)
    found = Found()
    if first != last:
        # A name that ends in `_label` is that of an image, unless another image has the rest of it.
        whole = {_named(path, first, False).key for path in images if not says_mask(path, first)}
        left_over = {path for path in images if says_mask(path, first) and _named(path, first, True).key in whole}
        found.unmatched += [(path, "a label map in the folder of images") for path in sorted(left_over)]
        images = [path for path in images if path not in left_over]
    return _paired([_named(path, first, False) for path in images], [_named(path, last, True) for path in masks], found)


def _named(path: Path, folder: Path, is_mask: bool) -> Named:
    parents = path.relative_to(folder).parts[:-1]
    full = stem(path)
    base = IMAGE_WORDS.sub("", MASK_WORDS.sub("", full) if is_mask else full)
    inner = (part for part in parents if not MASK_FOLDER.fullmatch(part) and not IMAGE_FOLDER.fullmatch(part))
    return Named(path, tuple(inner), base)


def _paired(images: Sequence[Named], masks: Sequence[Named], found: Found) -> Found:
    """A row for each image, with its label map if exactly one fits."""
    fitting: dict[Path, list[Named]] = {one.path: [] for one in images}
    left_over = list(masks)
    # By the name with subfolders, and where that finds none, by the file's own name if one image alone has it.
    for of in (lambda one: one.key, lambda one: one.short.lower()):
        free = [one for one in images if not fitting[one.path]]
        often = Counter(map(of, free))
        by_key = {of(one): one for one in free if often[of(one)] == 1}
        for mask in left_over:
            if image := by_key.get(of(mask)):
                fitting[image.path].append(mask)
        left_over = [mask for mask in left_over if of(mask) not in by_key]
    names = Counter(clean_name(one.short).lower() for one in images)
    for image in images:
        of_image = [one.path for one in fitting[image.path]]
        if len(of_image) > 1:
            found.unmatched += [(path, f"one of {len(of_image)} references of {image.path.name}") for path in of_image]
        name = image.short if names[clean_name(image.short).lower()] == 1 else image.name
        found.rows.append(Row(clean_name(name), image.path, of_image[0] if len(of_image) == 1 else None))
    keys = Counter(one.key for one in images)
    found.unmatched += [(one.path, f"{_images(keys[one.key])} of its name; it is left over") for one in left_over]
    return found


def _images(count: int) -> str:
    return f"{count} images" if count else "no image"
