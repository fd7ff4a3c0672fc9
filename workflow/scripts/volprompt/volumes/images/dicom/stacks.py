"""Which planes make up one volume: stacks of planes, the one that is chosen, and whether it can be used."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from volprompt.volumes.images.dicom.planes import Plane
from volprompt.volumes.images.geometry import IN_PLANE
from volprompt.volumes.images.image import VolumeError
from volprompt.words import plural

# Entries of direction cosines that differ by less belong to one orientation; they are written with few digits.
SAME_DIRECTION = 1e-3
# Share of the usual distance between planes by which a distance may differ from it.
SAME_STEP = 0.05
# Planes nearer than this, in millimetres, lie at one position.
SAME_POSITION = 0.01
# Share by which the echo times of one echo may differ: some scanners write the measured time into each header.
SAME_ECHO_TIME = 0.05
SHOWN = 3

Stack = list[Plane]


def group_into_stacks(planes: Sequence[Plane]) -> list[Stack]:
    """Group planes that make up one volume, in the order of their first planes.

    Planes belong together that have one grid, one series and one echo. What then differs in small ways is put together
    where it shares no position: echo times of one echo that differ by a little, and series of one description which lie
    between each other at equal distances, or of which each has one plane.
    """
    stacks: list[Stack] = []
    for one in planes:
        stack = next((known for known in stacks if _same_grid(known[0], one) and _kind(known[0]) == _kind(one)), None)
        if stack is None:
            stacks.append([one])
        else:
            stack.append(one)
    stacks = _put_together(stacks, _one_echo, _share_no_position)
    return _put_together(stacks, _one_description, _lie_between_each_other)


def _same_grid(one: Plane, other: Plane) -> bool:
    if (one.axes is None) != (other.axes is None):
        return False
    if one.axes is not None and np.abs(one.axes - other.axes).max() > SAME_DIRECTION:
        return False
    return _grid_kind(one) == _grid_kind(other)


def _grid_kind(one: Plane) -> tuple[Any, ...]:
    return one.rows, one.columns, one.spacing, one.samples, one.shown


def _kind(one: Plane) -> tuple[Any, ...]:
    return one.series, one.number, one.echo, one.variant, one.echo_time


def _put_together(
    stacks: list[Stack], related: Callable[[Plane, Plane], bool], whole: Callable[[list[Stack]], bool]
) -> list[Stack]:
    """Replace those stacks of one grid by one whose first planes are related, if they are a whole."""
    groups: list[list[Stack]] = []
    for stack in stacks:
        first = stack[0]
        group = next(
            (known for known in groups if related(known[0][0], first) and _same_grid(known[0][0], first)), None
        )
        if group is None:
            groups.append([stack])
        else:
            group.append(stack)
    united: list[Stack] = []
    for group in groups:
        united += [[one for stack in group for one in stack]] if len(group) > 1 and whole(group) else group
    return united


def _one_echo(one: Plane, other: Plane) -> bool:
    if one.echo_time is None or other.echo_time is None or _kind(one)[:-1] != _kind(other)[:-1]:
        return False
    return abs(one.echo_time - other.echo_time) <= SAME_ECHO_TIME * max(one.echo_time, other.echo_time)


def _one_description(one: Plane, other: Plane) -> bool:
    return one.description == other.description


def _places(planes: Sequence[Plane]) -> np.ndarray | None:
    """Return the planes' places along their normal, millimetres; None if one has none."""
    if any(one.position is None or one.axes is None for one in planes):
        return None
    return np.array([one.position @ planes[0].normal for one in planes])


def _share_no_position(stacks: list[Stack]) -> bool:
    places = _places([one for stack in stacks for one in stack])
    return places is not None and bool(np.diff(np.sort(places)).min() > SAME_POSITION)


def _lie_between_each_other(stacks: list[Stack]) -> bool:
    places = _places([one for stack in stacks for one in stack])
    if places is None or len(places) < 3:
        return False
    steps = np.diff(np.sort(places))
    if steps.min() < SAME_POSITION or np.abs(steps - np.median(steps)).max() > SAME_STEP * np.median(steps):
        return False
    if all(len(stack) == 1 for stack in stacks):
        return True
    numbers = np.repeat(np.arange(len(stacks)), [len(stack) for stack in stacks])[np.argsort(places)]
    beginnings = [numbers[0], *(after for before, after in pairwise(numbers) if before != after)]
    return bool(np.bincount(beginnings).min() > 1)


def choose_stack(stacks: list[Stack], path: str, series: str) -> Stack:
    """Return the one stack that `series` names, or the only one. Raises VolumeError if there are none or several."""
    fitting = [stack for stack in stacks if _is_called(stack, series)] if series else stacks
    if "@" in series and not fitting:
        name, _, echo = series.rpartition("@")
        called = [stack for stack in stacks if not name or _is_called(stack, name)]
        fitting = [stack for stack in called if str(stack[0].echo) == echo]
        if all(stack[0].echo is None for stack in called) and echo.isdecimal():
            fitting = called[int(echo) - 1 : int(echo)] if int(echo) else []
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
        "behind it for echo 2, or for the second of those listed where no echo has a number; or put one stack alone "
        "into a folder",
    )


def _is_called(stack: Stack, name: str) -> bool:
    if any(name in (one.series, str(one.number)) or (len(name) >= 6 and one.series.endswith(name)) for one in stack):
        return True
    one = stack[0]
    description, pattern = one.description.casefold(), name.strip().casefold()
    return bool(description) and (description == pattern or fnmatch.fnmatchcase(description, pattern))


def _describe(stack: Sequence[Plane]) -> str:
    one = stack[0]
    echo = "" if one.echo is None else f", echo {one.echo}"
    echo += "" if one.echo_time is None else f" ({one.echo_time:g} ms)"
    variant = f", frames of kind {' '.join(one.variant)}" if one.variant else ""
    plane = "no orientation"
    if one.axes is not None:
        plane = ("sagittal", "coronal", "axial")[int(np.abs(one.normal).argmax())]
    spacing = "" if one.spacing is None else f" of {one.spacing[0]:g} x {one.spacing[1]:g} mm"
    count = plural(len(stack), "slice")
    number = "-" if one.number is None else one.number
    return (
        f"series {number} (UID ...{one.series[-8:]}){echo}{variant}, {plane}, {count} of "
        f"{one.rows} x {one.columns} pixels{spacing}, first file {min(other.member.name for other in stack)}"
    )


def require_usable(stack: Sequence[Plane], path: str) -> None:
    """Raise VolumeError unless all planes of a stack are grey and have a place, and there are at least two."""
    for one in stack:
        if one.frames > 1:
            raise VolumeError(
                path,
                f"{one.member.name} is a multi-frame DICOM image ({one.frames} frames) without positions",
                "one file per slice, or enhanced DICOM",
                "Convert it to NIfTI, for example with dcm2niix",
            )
        if not one.grey:
            raise VolumeError(path, f"{one.member.name} holds colours", "grey values (MONOCHROME2 or MONOCHROME1)")
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
                f"{one.name} has no valid {', '.join(lacking) or 'PixelSpacing'}",
                "slices with a position in space",
                "Export the original series",
            )
    if len(stack) == 1 and str(stack[0].member.path) == path:
        raise VolumeError(path, "is a single DICOM file", "the folder or the archive of its series")
    if len(stack) == 1:
        raise VolumeError(path, f"the series has a single slice ({stack[0].member.name})", "a 3D volume")


def slice_distance(ordered: Sequence[Plane], path: str) -> float:
    """Return the millimetres between the sorted slices. Raises VolumeError unless they are at equal distances."""
    names = [one.name for one in ordered]
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
