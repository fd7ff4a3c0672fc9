"""The layout of BIDS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from volprompt.study.layouts.found import Found, Row, clean_name, given_folders
from volprompt.study.layouts.sources import images_in, stem


def bids(folders: Sequence[Path]) -> Found:
    """A BIDS tree.

    Images sub-X[/ses-Y]/anat/*.nii.gz, masks *_dseg, *_seg or *_mask of the same entities anywhere. Masks lie under
    derivatives/ as a rule, and may have more entities (desc, space). The group is the subject.
    """
    (folder,) = given_folders(folders, 1, "the dataset's folder")
    found = Found()
    every = images_in(folder, recursive=True)
    masks = [path for path in every if re.search(r"_(dseg|seg|mask|probseg|label)$", stem(path))]
    masks = [path for path in masks if not stem(path).endswith("probseg")]
    images = [path for path in every if path.relative_to(folder).parts[0].startswith("sub-") and path not in masks]
    of_image: dict[Path, list[Path]] = {path: [] for path in images}
    for mask in masks:
        fitting = [
            path for path in images if _entities(path).items() <= _entities(mask).items() and _same_suffix(path, mask)
        ]
        if len(fitting) == 1:
            of_image[fitting[0]].append(mask)
        else:
            found.unmatched.append((mask, f"fits {len(fitting)} images"))
    for path, fitting in of_image.items():
        if len(fitting) > 1:
            found.unmatched += [(mask, f"one of {len(fitting)} masks of {path.name}") for mask in fitting]
        reference = fitting[0] if len(fitting) == 1 else None
        found.rows.append(Row(clean_name(stem(path)), path, reference, f"sub-{_entities(path).get('sub', '')}"))
    return found


def _entities(path: Path) -> dict[str, str]:
    """`sub-01_ses-2_T1w` -> {sub: 01, ses: 2}; what only derivatives have (desc, space, label) is kept."""
    pairs = [part.partition("-") for part in stem(path).split("_") if "-" in part]
    return {key: value for key, _, value in pairs}


def _same_suffix(image: Path, mask: Path) -> bool:
    """Whether a mask can be that of an image with this suffix (T1w): its own suffix names no image of another kind.

    A mask `sub-01_T2w_dseg` names the suffix of its image; `sub-01_dseg` names none and fits any.
    """
    words = [part for part in stem(mask).split("_") if "-" not in part][:-1]
    return not words or stem(image).rpartition("_")[2] in words
