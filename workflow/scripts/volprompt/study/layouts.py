"""Sample sheets from the folder layouts that data sets come in: `volprompt sheet LAYOUT FOLDER ...`.

Only names are looked at; what is inside the files is checked by `volprompt check`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volprompt.errors import VolpromptError
from volprompt.files import separator, write_text
from volprompt.settings.values import name_fault
from volprompt.volumes.images.formats import ARCHIVE_ENDINGS, IMAGE_ENDINGS, ending_of
from volprompt.volumes.images.sources import files_below, is_dicom

# What names of masks end in beyond the name of their volume, in the data sets below and elsewhere.
MASK_WORDS = re.compile(r"[._-](segmentation[._-]?masks?|segmentation|masks?|labels?|labelmap|seg|gt|reference)$", re.I)
IMAGE_WORDS = re.compile(r"[._-](image|img|volume|mri?|0000)$", re.I)
SUBJECT = re.compile(r"(?<!\d)9\d{6}(?!\d)")  # OAI's participants
BARCODE = re.compile(r"(?<!\d)1\d{7}(?!\d)")  # OAI's image series
SHOWN = 20


class LayoutError(VolpromptError):
    """Folders in which nothing of the layout was found, or a sheet that would be overwritten."""


@dataclass(frozen=True)
class Row:
    """A row of the sample sheet."""

    volume: str
    image: Path
    reference: Path | None = None
    group: str = ""


@dataclass
class Found:
    """What was matched, what was not and why, and lines for the configuration."""

    rows: list[Row] = field(default_factory=list)
    unmatched: list[tuple[Path, str]] = field(default_factory=list)
    structures: list[str] = field(default_factory=list)


def stem(path: Path) -> str:
    """A file's name without the ending of its format."""
    return path.name[: len(path.name) - len(ending_of(path))]


def images_in(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files below a folder, sorted, without hidden ones. Of a header with a data file the header is listed."""
    found = files_below(folder) if recursive else folder.iterdir()
    return sorted(path for path in found if ending_of(path) in IMAGE_ENDINGS and path.name[0] != ".")


def nnunet(folders: Sequence[Path]) -> Found:
    """A raw dataset of nnU-Net.

    imagesTr/CASE_0000.EXT, labelsTr/CASE.EXT, names and numbers of labels in dataset.json. Test cases (imagesTs) come
    without reference unless there is a labelsTs. Of several channels the first is taken.
    """
    (folder,) = _folders(folders, 1, "a dataset folder (Dataset001_NAME)")
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
                found.rows.append(Row(case, path, references.pop(case, None)))
        found.unmatched += [(path, f"no image in {images}") for path in references.values()]
    description = folder / "dataset.json"
    if description.is_file():
        found.structures = _structures(description)
    return found


def _structures(description: Path) -> list[str]:
    """The configuration's structures from dataset.json: `name: number` (nnU-Net 2) or `number: name` (1)."""
    try:
        labels = json.loads(description.read_text(encoding="utf-8"))["labels"]
        pairs = [(name, value) for name, value in labels.items()]
        if all(str(name).isdigit() for name, _ in pairs):
            pairs = [(value, int(name)) for name, value in pairs]
    except (ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise LayoutError(f"{description}: has no readable `labels` ({type(error).__name__}: {error})") from None
    lines = []
    for name, value in pairs:
        numbers = [number for number in (value if isinstance(value, list) else [value]) if number]
        if numbers and str(name).lower() != "background":
            lines.append(f"  {_name(str(name))}: {{labels: {numbers}}}")
    return lines


def bids(folders: Sequence[Path]) -> Found:
    """A BIDS tree.

    Images sub-X[/ses-Y]/anat/*.nii.gz, masks *_dseg, *_seg or *_mask of the same entities anywhere. Masks lie under
    derivatives/ as a rule, and may have more entities (desc, space). The group is the subject.
    """
    (folder,) = _folders(folders, 1, "the dataset's folder")
    found = Found()
    every = images_in(folder, recursive=True)
    masks = [path for path in every if re.search(r"_(dseg|seg|mask|probseg|label)$", stem(path))]
    masks = [path for path in masks if not stem(path).endswith("probseg")]
    images = [path for path in every if _relative(path, folder).parts[0].startswith("sub-") and path not in masks]
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
        found.rows.append(Row(_name(stem(path)), path, reference, f"sub-{_entities(path).get('sub', '')}"))
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


def oai_zib(folders: Sequence[Path]) -> Found:
    """DESS series of the OAI and masks of ZIB.

    Series are folders or archives of DICOM, named by barcode, below a folder of the subject; masks have names such as
    9001104.segmentation_masks.mhd. Images and masks are matched by OAI's subject (seven digits from 9...) and barcode
    (eight digits from 1...) anywhere in their paths: a mask with both needs both, one with a subject alone fits if the
    subject has one series only. The group is the subject.
    """
    images_folder, masks_folder = _folders(folders, 2, "the folder of OAI's images and the folder of ZIB's masks")
    found = Found()
    sources = _dicom_sources(images_folder) + images_in(images_folder, recursive=True)
    free = {path: _ids(_relative(path, images_folder)) for path in sources}
    for mask in images_in(masks_folder, recursive=True):
        subject, barcode = _ids(_relative(mask, masks_folder))
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


def _dicom_sources(folder: Path) -> list[Path]:
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


def _ids(path: Path) -> tuple[str, str]:
    """OAI's subject and barcode in a path, the last of each; empty where there is none."""
    subjects, barcodes = SUBJECT.findall(str(path)), BARCODE.findall(str(path))
    return (subjects or [""])[-1], (barcodes or [""])[-1]


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


def pairs(folders: Sequence[Path]) -> Found:
    """A folder of images and one of references.

    The names are the same but for words such as _image, _label, .mask. Images may also be folders or archives of DICOM.
    With one folder alone, there are no references.
    """
    if len(folders) not in (1, 2):
        raise LayoutError(f"found {len(folders)} folders; expected the folder of images and the folder of references")
    every = _folders(folders, len(folders), "folders")
    found = Found()
    sources = sorted({*images_in(every[0]), *_dicom_sources(every[0])} - {every[0]})
    masks: dict[str, list[Path]] = {}
    for path in images_in(every[1]) if len(every) > 1 else []:
        masks.setdefault(MASK_WORDS.sub("", stem(path)).lower(), []).append(path)
    for path in sources:
        if len(every) > 1 and path.is_relative_to(every[1]):
            continue
        full = stem(path)
        short = IMAGE_WORDS.sub("", full)
        key = next((name for name in (full.lower(), short.lower()) if name in masks), "")
        fitting = masks.pop(key, [])
        if len(fitting) > 1:
            found.unmatched += [(mask, f"one of {len(fitting)} references of {path.name}") for mask in fitting]
        found.rows.append(Row(_name(short), path, fitting[0] if len(fitting) == 1 else None))
    found.unmatched += [(path, "no image of its name") for paths in masks.values() for path in paths]
    return found


@dataclass(frozen=True)
class Layout:
    """How a layout is read, and folders as an example of what it takes."""

    match: Callable[[Sequence[Path]], Found]
    example: str


LAYOUTS = {
    "nnunet": Layout(nnunet, "Dataset001_Knee"),
    "bids": Layout(bids, "my_bids"),
    "oai-zib": Layout(oai_zib, "oai_dess zib_masks"),
    "oaizib-cm": Layout(oaizib_cm, "OAIZIB-CM"),
    "folders": Layout(pairs, "images references"),
}


def _folders(folders: Sequence[Path], count: int, what: str) -> list[Path]:
    if len(folders) != count:
        raise LayoutError(f"found {len(folders)} folders; expected {what}")
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise LayoutError(f"{missing[0]}: no such folder; expected {what}")
    return list(folders)


def _images_if(folder: Path) -> list[Path]:
    return images_in(folder) if folder.is_dir() else []


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder)


def _name(text: str) -> str:
    """A name that can be part of a file's: other characters become `_`."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip("._+-") or "_"


def write_sheet(found: Found, out: Path, force: bool) -> None:
    """Write the sample sheet, atomically.

    Raises LayoutError if nothing was matched or names clash, and unless `force` if there is a sheet already that lists
    volumes.
    """
    if not found.rows:
        raise LayoutError("No image was found in this layout; nothing is written.")
    seen: dict[str, Path] = {}
    for row in found.rows:
        if fault := name_fault(row.volume):
            raise LayoutError(f"{row.image}: gives no name of a volume, since '{row.volume}' {fault}; rename it")
        if row.volume in seen:
            raise LayoutError(f"{row.image}: would be named '{row.volume}' like {seen[row.volume]}; rename one")
        seen[row.volume] = row.image
    if out.exists() and not force and not _is_empty_sheet(out):
        raise LayoutError(f"{out} exists already; choose another name, or give --force to replace it")
    text = io.StringIO()
    sheet = csv.writer(text, delimiter=separator(out, "\t"), lineterminator="\n")
    sheet.writerow(["volume", "image", "reference", "group"])
    for row in sorted(found.rows, key=lambda row: row.volume):
        sheet.writerow([row.volume, row.image, row.reference or "", row.group])
    write_text(out, text.getvalue())


def _is_empty_sheet(path: Path) -> bool:
    """Whether a file is a sample sheet without a row, as `volprompt init` writes it."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return len(lines) == 1 and {"volume", "image"} <= set(lines[0].split(separator(path, "\t")))


def summary(found: Found, out: Path) -> str:
    """What was matched and what was not, and what goes into the configuration."""
    pairs = sum(row.reference is not None for row in found.rows)
    lines = [f"{out}: {len(found.rows)} volumes, {pairs} of them with a reference"]
    alone = [row for row in found.rows if row.reference is None]
    if alone:
        lines.append(f"without reference: {', '.join(row.volume for row in alone[:SHOWN])}{_more(alone)}")
    if found.unmatched:
        lines.append(f"not used ({len(found.unmatched)}):")
        lines += [f"  {path}: {reason}" for path, reason in found.unmatched[:SHOWN]]
        lines += [f"  and {len(found.unmatched) - SHOWN} more"] if len(found.unmatched) > SHOWN else []
    lines += ["for the configuration:", f"volumes: {out}"]
    lines += ["structures:", *found.structures] if found.structures else []
    return "\n".join(lines)


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
