"""The layouts of nnU-Net, and of the public derivative of OAI-ZIB that has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from volprompt.study.layouts.found import Found, Row, clean_name, given_folders
from volprompt.study.layouts.labels import read_labels
from volprompt.study.layouts.sources import images_in, stem


def nnunet(folders: Sequence[Path]) -> Found:
    """A raw dataset of nnU-Net.

    imagesTr/CASE_0000.EXT, labelsTr/CASE.EXT, names and numbers of labels in dataset.json. Test cases (imagesTs) come
    without reference unless there is a labelsTs. Of several channels the first is taken.
    """
    (folder,) = given_folders(folders, 1, "a dataset folder (Dataset001_NAME)")
    found = Found()
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        references = {stem(path): path for path in _images_if(folder / labels)}
        for path in _images_if(folder / images):
            case, _, channel = stem(path).rpartition("_")
            if not case or not re.fullmatch(r"\d{4}", channel):
                found.unmatched.append((path, "its name has no channel (CASE_0000)"))
            elif channel != "0000":
                found.unmatched.append((path, "another channel than the first"))
            else:
                found.rows.append(Row(clean_name(case), path, references.pop(case, None)))
        found.unmatched += [(path, f"no image in {images}") for path in references.values()]
    description = folder / "dataset.json"
    if description.is_file():
        found.structures, found.ignore = read_labels(description)
    return found


def _images_if(folder: Path) -> list[Path]:
    return images_in(folder) if folder.is_dir() else []


def oaizib_cm(folders: Sequence[Path]) -> Found:
    """The data set OAIZIB-CM.

    imagesTr and imagesTs with oaizib_001_0000.nii.gz, labelsTr and labelsTs with oaizib_001.nii.gz.
    """
    found = nnunet(folders)
    # Label numbers of the public derivative; the masks of ZIB itself have one tibial cartilage (4).
    found.structures = found.structures or [
        "  femur: {labels: [1]}",
        "  femoral_cartilage: {labels: [2]}",
        "  tibia: {labels: [3]}",
        "  medial_tibial_cartilage: {labels: [4]}",
        "  lateral_tibial_cartilage: {labels: [5]}",
    ]
    return found
