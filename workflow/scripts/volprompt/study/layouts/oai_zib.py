"""The layout of the Osteoarthritis Initiative's images with the masks of ZIB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from volprompt.study.layouts.found import Found, Row, given_folders
from volprompt.study.layouts.sources import images_and_masks

SUBJECT = re.compile(r"(?<!\d)9\d{6}(?!\d)")  # OAI's participants
BARCODE = re.compile(r"(?<!\d)1\d{7}(?!\d)")  # OAI's image series


def oai_zib(folders: Sequence[Path]) -> Found:
    """DESS series of the OAI and masks of ZIB.

    Series are folders or archives of DICOM, named by barcode, below a folder of the subject; masks have names such as
    9001104.segmentation_masks.mhd. Images and masks are matched by OAI's subject (seven digits from 9...) and barcode
    (eight digits from 1...) anywhere in their paths: a mask with both needs both, one with a subject alone fits if the
    subject has one series only. The group is the subject.
    """
    images_folder, masks_folder = given_folders(folders, 2, "the folder of OAI's images and the folder of ZIB's masks")
    found = Found()
    sources, masks = images_and_masks(images_folder, masks_folder)
    free = {path: _ids(path.relative_to(images_folder)) for path in sources}
    for mask in masks:
        subject, barcode = _ids(mask.relative_to(masks_folder))
        fitting = [path for path, ids in free.items() if barcode and ids[1] == barcode] or [
            path for path, ids in free.items() if subject and ids[0] == subject and not (barcode and ids[1])
        ]
        if len(fitting) != 1:
            known = " and ".join(filter(None, (subject, barcode))) or "no subject or barcode in its name"
            found.unmatched.append((mask, f"{len(fitting)} images of {known}"))
            continue
        image = fitting[0]
        ids = free.pop(image)
        name = "_".join(filter(None, (ids[0] or subject, ids[1] or barcode)))
        found.rows.append(Row(name, image, mask, ids[0] or subject))
    found.unmatched += [(path, "no mask") for path in free]
    return found


def _ids(path: Path) -> tuple[str, str]:
    """OAI's subject and barcode in a path, the last of each; empty where there is none."""
    subjects, barcodes = SUBJECT.findall(str(path)), BARCODE.findall(str(path))
    return (subjects or [""])[-1], (barcodes or [""])[-1]
