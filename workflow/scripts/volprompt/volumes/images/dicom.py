"""A DICOM series as one volume: which files belong together, in which order, and what is wrong with them.

Only tags of geometry and of the series are read from a header, never the patient's. Messages name files, numbers,
geometry and the end of a series' UID, and no text of a header.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

from volprompt.volumes.images.archives import Member, members_of
from volprompt.volumes.images.image import LPS_TO_RAS, Image, VolumeError, damaged, geometry_header, unreadable
from volprompt.volumes.images.sources import is_dicom

TAGS = [
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
]
# Entries of direction cosines that differ by less belong to one orientation; they are written with few digits.
SAME_DIRECTION = 1e-3
# Share of the usual distance between slices by which a distance may differ from it.
SAME_STEP = 0.05
# Slices nearer than this, in millimetres, lie at one position.
SAME_POSITION = 0.01
# Share of a pixel by which slices may be shifted against each other in their plane.
IN_PLANE = 0.5
SHOWN = 3
# Pydicom's warnings quote values, and ITK's name tags: neither belongs into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Slice:
    """What the header of one file says; None for what is missing or invalid.

    member: the file.
    series, description, number: the series' UID, its description and its number.
    echo, echo_time: number of the echo, and its time in milliseconds.
    rows, columns: pixels along y and x.
    spacing: between rows and between columns, millimetres.
    axes: (2, 3) directions in which columns and rows are counted, in the patient's coordinates L, P, S.
    position: (3,) centre of the first pixel, L, P, S, millimetres.
    frames: images in the file.
    grey: whether a pixel is one grey value that grows with brightness.
    """

    member: Member
    series: str
    description: str
    number: int | None
    echo: int | None
    echo_time: float | None
    rows: int
    columns: int
    spacing: tuple[float, ...] | None
    axes: np.ndarray | None
    position: np.ndarray | None
    frames: int
    grey: bool

    @property
    def normal(self) -> np.ndarray:
        """(3,) direction across the slices, L, P, S."""
        assert self.axes is not None
        return np.cross(self.axes[0], self.axes[1])

    def same_stack(self, other: Slice) -> bool:
        """Return whether two slices can belong to one volume."""
        if (self.axes is None) != (other.axes is None):
            return False
        if self.axes is not None and np.abs(self.axes - other.axes).max() > SAME_DIRECTION:
            return False
        return self._kind() == other._kind()

    def _kind(self) -> tuple[Any, ...]:
        return self.series, self.number, self.echo, self.echo_time, self.rows, self.columns, self.spacing, self.grey


@contextmanager
def open_series(path: str, series: str) -> Iterator[Image]:
    """Open one series of a folder or an archive, see `read_series`; an archive is unpacked until the block ends."""
    with members_of(path) as members:
        yield read_series(members, path, series)


def read_series(members: Sequence[Member], path: str, series: str) -> Image:
    """Describe the one series among `members`, or the one that `series` chooses, as a volume. Reads headers only.

    series: a SeriesInstanceUID or its end of at least 6 characters, a series number, or a SeriesDescription (`*` stands
    for anything, case does not matter); `@2` behind it chooses echo 2. Empty if there is only one series.
    Raises VolumeError unless exactly one stack of slices at equal distances is left.
    """
    slices = [one for one in (_read_header(member, path) for member in members) if one is not None]
    if not slices:
        kind = "folder" if Path(path).is_dir() else "archive"
        raise unreadable(path, f"the {kind} holds {len(members)} files and no DICOM image")
    chosen = _choose(_group_into_stacks(slices), path, series)
    _require_usable(chosen, path)
    ordered = sorted(chosen, key=lambda one: float(one.position @ chosen[0].normal))
    step = _slice_distance(ordered, path)
    first = ordered[0]
    assert first.axes is not None
    assert first.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.position
    affine = LPS_TO_RAS @ affine
    shape = first.columns, first.rows, len(ordered)
    header = geometry_header(shape, affine)
    return Image(path, shape, affine, header, lambda: _read_voxels(ordered, path), lambda: None)


def _read_header(member: Member, path: str) -> Slice | None:
    """Read the header of a file; None for a file that is no DICOM image (a directory, a report, a text)."""
    if not is_dicom(member.path):
        return None
    try:
        header = pydicom.dcmread(member.path, stop_before_pixels=True, specific_tags=TAGS)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        bits, samples = int(header.get("BitsAllocated") or 16), int(header.get("SamplesPerPixel") or 1)
        frames = int(header.get("NumberOfFrames") or 1)
        syntax = header.file_meta.get("TransferSyntaxUID")
    except Exception as error:  # pydicom raises anything on a broken header; its text may quote the header
        raise damaged(path, f"header of {member.name}: {type(error).__name__}") from None
    if not rows or not columns:
        if syntax is None:
            raise damaged(path, f"header of {member.name}: nothing is left of it")
        return None
    if syntax is None or not syntax.is_transfer_syntax:
        raise VolumeError(
            path,
            f"{member.name} says nothing of how its pixels are written (TransferSyntaxUID), or in private words",
            "one of DICOM's transfer syntaxes",
            "Convert the series, for example with gdcmconv",
        )
    compressed = syntax.is_compressed or syntax.is_deflated
    expected = rows * columns * samples * frames * bits // 8
    if not compressed and member.path.stat().st_size < expected:
        raise damaged(path, f"{member.name} has less than the {expected} bytes of its pixels")
    axes = _read_numbers(header, "ImageOrientationPatient", 6)
    position = _read_numbers(header, "ImagePositionPatient", 3)
    spacing = _read_numbers(header, "PixelSpacing", 2)
    number, echo = _read_numbers(header, "SeriesNumber", 1), _read_numbers(header, "EchoNumbers", 1)
    echo_time = _read_numbers(header, "EchoTime", 1)
    return Slice(
        member,
        str(header.get("SeriesInstanceUID") or ""),
        str(header.get("SeriesDescription") or "").strip(),
        None if number is None else int(number[0]),
        None if echo is None else int(echo[0]),
        None if echo_time is None else round(float(echo_time[0]), 3),
        rows,
        columns,
        None if spacing is None else tuple(round(float(value), 6) for value in spacing),
        None if axes is None else _unit_vectors(axes),
        position,
        frames,
        samples == 1 and str(header.get("PhotometricInterpretation") or "MONOCHROME2") == "MONOCHROME2",
    )


def _read_numbers(header: pydicom.Dataset, tag: str, count: int) -> np.ndarray | None:
    """Read the numbers of a tag; None if they are missing, unreadable or of another count."""
    try:
        numbers = np.atleast_1d(np.asarray(header.get(tag), dtype=float))
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


def _group_into_stacks(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group slices that can belong to one volume, in the order of their first slices."""
    stacks: list[list[Slice]] = []
    for one in slices:
        stack = next((known for known in stacks if known[0].same_stack(one)), None)
        if stack is None:
            stacks.append([one])
        else:
            stack.append(one)
    return stacks


def _choose(stacks: list[list[Slice]], path: str, series: str) -> list[Slice]:
    """Return the one stack that `series` names, or the only one. Raises VolumeError if there are none or several."""
    fitting = [stack for stack in stacks if _is_called(stack[0], series)] if series else stacks
    if "@" in series and not fitting:
        name, _, echo = series.rpartition("@")
        fitting = [stack for stack in stacks if _is_called(stack[0], name) and str(stack[0].echo) == echo]
    if len(fitting) == 1:
        return fitting[0]
    listed = "".join(f"\n  - {_describe(stack)}" for stack in fitting or stacks)
    if not fitting:
        raise VolumeError(
            path,
            f"holds no series '{series}', but{listed}\n ",
            remedy="Correct the sample sheet's column `series`: a UID or its end, a series number or a description",
        )
    what = f"'{series}' stands for" if series else "holds"
    raise VolumeError(
        path,
        f"{what} {len(fitting)} stacks of slices (series, echoes, orientations or sizes)\n  {listed.strip()}\n ",
        "one",
        "Choose one in the sample sheet's column `series`: a UID or its end, a series number or a description, with @2 "
        "behind it for echo 2; or put one stack alone into a folder",
    )


def _is_called(one: Slice, name: str) -> bool:
    if name in (one.series, str(one.number)) or (len(name) >= 6 and one.series.endswith(name)):
        return True
    description, pattern = one.description.casefold(), name.strip().casefold()
    return bool(description) and (description == pattern or fnmatch.fnmatchcase(description, pattern))


def _describe(stack: Sequence[Slice]) -> str:
    one = stack[0]
    echo = "" if one.echo is None else f", echo {one.echo}"
    echo += "" if one.echo_time is None else f" ({one.echo_time:g} ms)"
    plane = "no orientation"
    if one.axes is not None:
        plane = ("sagittal", "coronal", "axial")[int(np.abs(one.normal).argmax())]
    spacing = "" if one.spacing is None else f" of {one.spacing[0]:g} x {one.spacing[1]:g} mm"
    count = "1 slice" if len(stack) == 1 else f"{len(stack)} slices"
    return (
        f"series {'-' if one.number is None else one.number} (UID ...{one.series[-8:]}){echo}, {plane}, {count} of "
        f"{one.rows} x {one.columns} pixels{spacing}, first file {min(other.member.name for other in stack)}"
    )


def _require_usable(stack: Sequence[Slice], path: str) -> None:
    for one in stack:
        if one.frames > 1:
            raise VolumeError(
                path,
                f"{one.member.name} is a multi-frame DICOM image ({one.frames} frames)",
                "one file per slice",
                "Convert it to NIfTI, for example with dcm2niix",
            )
        if not one.grey:
            raise VolumeError(path, f"{one.member.name} holds colours or inverted grey values", "MONOCHROME2")
        lacking = [
            tag
            for tag, value in (
                ("ImageOrientationPatient", one.axes),
                ("ImagePositionPatient", one.position),
                ("PixelSpacing", one.spacing),
            )
            if value is None
        ]
        if lacking or min(one.spacing or (0.0,)) <= 0:
            raise VolumeError(
                path,
                f"{one.member.name} has no valid {', '.join(lacking) or 'PixelSpacing'}",
                "slices with a position in space",
                "Export the original series",
            )
    if len(stack) == 1:
        raise VolumeError(path, f"the series has a single slice ({stack[0].member.name})", "a 3D volume")


def _slice_distance(ordered: Sequence[Slice], path: str) -> float:
    """Return the millimetres between the sorted slices. Raises VolumeError unless they are at equal distances."""
    names = [one.member.name for one in ordered]
    positions = np.array([one.position for one in ordered])
    normal = ordered[0].normal
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    same = np.flatnonzero(steps < SAME_POSITION)
    if same.size:
        pairs = ", ".join(f"{names[index]} and {names[index + 1]}" for index in same[:SHOWN])
        more = f" and {same.size - SHOWN} more pairs" if same.size > SHOWN else ""
        raise VolumeError(
            path,
            f"{same.size} of {len(ordered)} slices lie where another one lies: {pairs}{more}",
            "one slice per position",
            "Remove the duplicates, or put echoes and points in time into folders of their own",
        )
    usual = float(np.median(steps))
    off = np.flatnonzero(np.abs(steps - usual) > SAME_STEP * usual)
    if off.size:
        places = ", ".join(f"{steps[i]:.4g} mm between {names[i]} and {names[i + 1]}" for i in off[:SHOWN])
        more = f" and {off.size - SHOWN} more" if off.size > SHOWN else ""
        raise VolumeError(
            path,
            f"slices are not at equal distances: {places}{more}",
            f"{usual:.4g} mm between all {len(ordered)} slices",
            "Get the missing slices, or choose one series",
        )
    shift = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1).max()
    if shift > IN_PLANE * min(ordered[0].spacing or (0.0,)):
        raise VolumeError(
            path,
            f"slices are shifted against each other in their plane by up to {shift:.4g} mm (a tilted gantry)",
            "a stack at right angles",
            "Resample it, for example with dcm2niix",
        )
    return float(along[-1]) / (len(ordered) - 1)


def _read_voxels(ordered: Sequence[Slice], path: str) -> np.ndarray:
    """Read float32 (column, row, slice), with the rescale slope and intercept of every slice (GDCM applies them)."""
    first = ordered[0]
    voxels = np.empty((first.columns, first.rows, len(ordered)), np.float32, order="F")
    for index, one in enumerate(ordered):
        try:
            image = sitk.ReadImage(str(one.member.path), sitk.sitkFloat32, imageIO="GDCMImageIO")
        except RuntimeError:
            raise damaged(path, f"the pixels of {one.member.name} cannot be decoded") from None
        pixels = sitk.GetArrayViewFromImage(image).reshape(-1)
        if pixels.size != first.rows * first.columns:
            raise damaged(path, f"{one.member.name} has {pixels.size} pixels")
        voxels[:, :, index] = pixels.reshape(first.rows, first.columns).T
    return voxels
