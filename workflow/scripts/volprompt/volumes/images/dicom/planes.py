"""What DICOM headers say of each plane of pixels: one per file, or one per frame of an enhanced file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from volprompt.volumes.images.archives import Member
from volprompt.volumes.images.file_sizes import LARGEST_RATIO
from volprompt.volumes.images.image import VolumeError, damaged
from volprompt.volumes.images.sources import is_dicom

# What is read of a header, and nothing else: no name of a patient is ever in memory.
TAGS = [
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "EchoNumbers",
    "EchoTime",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
# Of an enhanced file: what tells its stacks apart, by the group that holds it. Values that no frame has count as one.
VARIANTS = (
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
)
LABELMAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")  # newer than pydicom 3.0
# Pydicom's warnings quote values, which do not belong into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True)
class Plane:
    """What a header says of one plane of pixels; None for what is missing or invalid.

    member: the file.
    frame: number of the plane in it, from 0 on.
    frames: planes in the file that have no position each; 1 if they have.
    series, description, number: the series' UID, its description and its number.
    echo, echo_time: number of the echo, and its time in milliseconds.
    variant: what else tells the stacks of an enhanced file apart.
    rows, columns: pixels along y and x.
    spacing: between rows and between columns, millimetres.
    axes: (2, 3) directions in which columns and rows are counted, in the patient's coordinates L, P, S.
    position: (3,) centre of the first pixel, L, P, S, millimetres.
    samples: numbers per pixel.
    shown: how they are shown; MONOCHROME1 shows the larger ones darker.
    modality: of the scanner, such as MR.
    enhanced: whether the file is an enhanced one, with a position per frame.
    """

    member: Member
    frame: int
    frames: int
    series: str
    description: str
    number: int | None
    echo: int | None
    echo_time: float | None
    variant: tuple[str, ...]
    rows: int
    columns: int
    spacing: tuple[float, ...] | None
    axes: np.ndarray | None
    position: np.ndarray | None
    samples: int
    shown: str
    modality: str
    enhanced: bool

    @property
    def normal(self) -> np.ndarray:
        """(3,) direction across the planes, L, P, S."""
        assert self.axes is not None
        return np.cross(self.axes[0], self.axes[1])

    @property
    def grey(self) -> bool:
        """Whether a pixel is one grey value."""
        return self.samples == 1 and self.shown in ("MONOCHROME2", "MONOCHROME1")

    @property
    def inverted(self) -> bool:
        """Whether large values are meant to be dark. Hounsfield units mean the same however they are shown."""
        return self.shown == "MONOCHROME1" and self.modality != "CT"

    @property
    def name(self) -> str:
        """The file's name, with the number of the frame (from 1 on, as DICOM counts) where it has several."""
        return f"{self.member.name} frame {self.frame + 1}" if self.enhanced else self.member.name


@dataclass
class Contents:
    """The DICOM objects of a folder, an archive or a file: planes of images, segmentations, contours."""

    planes: list[Plane] = field(default_factory=list)
    segmentations: list[Member] = field(default_factory=list)
    contours: list[Member] = field(default_factory=list)


def read_contents(members: Sequence[Member], path: str) -> Contents:
    """Read the headers of all files; those that are no DICOM object with pixels or contours are left out.

    path: of the source, for messages. Raises VolumeError for a damaged file.
    """
    contents = Contents()
    for member in members:
        if not is_dicom(member.path):
            continue
        header = _read_header(member, path)
        if header.get("SOPClassUID") in (SegmentationStorage, LABELMAP_SEGMENTATION_STORAGE):
            contents.segmentations.append(member)
        elif header.get("SOPClassUID") == RTStructureSetStorage:
            contents.contours.append(member)
        else:
            contents.planes += _planes_of(header, member, path)
    return contents


def _read_header(member: Member, path: str) -> pydicom.FileDataset:
    try:
        return pydicom.dcmread(member.path, stop_before_pixels=True, specific_tags=TAGS, force=True)
    except Exception as error:  # pydicom raises anything on a broken header; its text may quote the header
        raise damaged(path, f"header of {member.name}: {type(error).__name__}") from None


def _planes_of(header: pydicom.FileDataset, member: Member, path: str) -> list[Plane]:
    """Return the planes of a file; none for one without pixels (a directory, a report)."""
    try:
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        bits, samples = int(header.get("BitsAllocated") or 16), int(header.get("SamplesPerPixel") or 1)
        frames = int(header.get("NumberOfFrames") or 1)
        syntax = header.file_meta.get("TransferSyntaxUID")
        if not rows or not columns:
            if syntax is None:
                raise damaged(path, f"header of {member.name}: nothing is left of it")
            return []
        _require_pixels(member, path, header, rows * columns * samples * frames * bits // 8)
        per_frame = header.get("PerFrameFunctionalGroupsSequence")
        if not per_frame:
            return [_plane(header, [header], member, 0, frames)]
        if len(per_frame) != frames:
            raise damaged(path, f"header of {member.name}: {frames} frames, {len(per_frame)} of them described")
        shared = list(header.get("SharedFunctionalGroupsSequence") or [])
        groups = [[*_flattened([one]), *_flattened(shared), header] for one in per_frame]
        return [_plane(header, parts, member, index, 1) for index, parts in enumerate(groups)]
    except VolumeError:
        raise
    except Exception as error:
        raise damaged(path, f"header of {member.name}: {type(error).__name__}") from None


def _flattened(groups: Sequence[pydicom.Dataset]) -> Iterator[pydicom.Dataset]:
    """Yield the single items of the functional groups, such as the one of PlanePositionSequence."""
    for group in groups:
        for element in group:
            if element.VR == "SQ" and len(element.value) == 1:
                yield element.value[0]


def _require_pixels(member: Member, path: str, header: pydicom.FileDataset, expected: int) -> None:
    """Raise VolumeError if a file does not say how its pixels are written, or is too small for them."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    old = not header.file_meta and header.preamble is None  # before PS3.10, with what came later over the network
    if not old and (syntax is None or not syntax.is_transfer_syntax):
        raise VolumeError(
            path,
            f"{member.name} says nothing of how its pixels are written (TransferSyntaxUID), or in private words",
            "one of DICOM's transfer syntaxes",
            "Convert the series, for example with gdcmconv",
        )
    ratio = 1
    if not old and syntax.is_deflated:
        ratio = LARGEST_RATIO
    elif not old and syntax.is_compressed:
        return
    if member.path.stat().st_size * ratio < expected:
        raise damaged(path, f"{member.name} has less than the {expected} bytes of its pixels")


def _plane(
    header: pydicom.FileDataset, parts: Sequence[pydicom.Dataset], member: Member, index: int, frames: int
) -> Plane:
    """Describe one plane. parts: where its values are looked for, in this order; index: its number in the file."""

    def numbers(tag: str, count: int) -> np.ndarray | None:
        return next((found for part in parts if (found := _read_numbers(part, tag, count)) is not None), None)

    axes, spacing = numbers("ImageOrientationPatient", 6), numbers("PixelSpacing", 2)
    number, echo, echo_time = numbers("SeriesNumber", 1), numbers("EchoNumbers", 1), numbers("EchoTime", 1)
    if echo_time is None:
        echo_time = numbers("EffectiveEchoTime", 1)
    enhanced = len(parts) > 1
    variant = [str(part.get(tag)) for group, tag in VARIANTS if enhanced for part in parts if tag in part]
    return Plane(
        member,
        index,
        frames,
        str(header.get("SeriesInstanceUID") or ""),
        str(header.get("SeriesDescription") or "").strip(),
        None if number is None else int(number[0]),
        None if echo is None else int(echo[0]),
        None if echo_time is None else round(float(echo_time[0]), 3),
        tuple(variant),
        int(header.Rows),
        int(header.Columns),
        None if spacing is None else tuple(round(float(value), 6) for value in spacing),
        None if axes is None else _unit_vectors(axes),
        numbers("ImagePositionPatient", 3),
        int(header.get("SamplesPerPixel") or 1),
        str(header.get("PhotometricInterpretation") or "MONOCHROME2"),
        str(header.get("Modality") or ""),
        enhanced,
    )


def _read_numbers(part: Any, tag: str, count: int) -> np.ndarray | None:
    """Read the numbers of a tag; None if they are missing, unreadable or of another count."""
    try:
        numbers = np.atleast_1d(np.asarray(part.get(tag), dtype=float))
    except (TypeError, ValueError, AttributeError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _unit_vectors(cosines: np.ndarray) -> np.ndarray | None:
    """Return (2, 3) unit vectors, or None unless the six cosines are two directions at right angles."""
    axes = cosines.reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(axes[0] @ axes[1]) > 0.01:
        return None
    return axes / lengths[:, None]
