"""The click with which a person would correct a mask, simulated from the reference.

A click lies at the point deepest inside the largest connected component of the error: positive where the mask lacks a
part of the structure (false negatives), negative where it covers something else (false positives). That is the rule of
interactive segmentation challenges and of SAM's own training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from volprompt.prompts.schemes import ObjectPrompt

POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Click:
    """A correction click.

    slice: index of the slice; x, y: the pixel of the frame that was clicked; label: 1 for a positive click and 0 for a
    negative one.
    """

    slice: int
    x: int
    y: int
    label: int


def click_on_slice(mask: np.ndarray, reference: np.ndarray, spacing: Sequence[float], index: int) -> Click | None:
    """Return the click that corrects the mask of one slice; None if the mask equals the reference.

    mask, reference: bool (y, x).
    spacing: distance between pixels along y and x, in millimetres.
    index: of the slice.
    """
    found = _deepest_error(mask, reference, spacing)
    return None if found is None else Click(index, x=found[0][1], y=found[0][0], label=found[1])


def click_in_volume(mask: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> Click | None:
    """Return the click that corrects the mask of a volume; None if the mask equals the reference.

    Components and depths are those of the volume: the click is on the slice where the component is deepest.

    mask, reference: bool (slice, y, x).
    spacing: distance between voxels along slice, y and x, in millimetres.
    """
    found = _deepest_error(mask, reference, spacing)
    return None if found is None else Click(found[0][0], x=found[0][2], y=found[0][1], label=found[1])


def with_click(prompt: ObjectPrompt, click: Click) -> ObjectPrompt:
    """Return the prompt with a click as its last point, and without a mask: the decoder gets its own logits instead."""
    points = np.concatenate([prompt.points, np.array([[click.x, click.y]], dtype=np.float32)])
    labels = np.concatenate([prompt.labels, np.array([click.label], dtype=np.int32)])
    return replace(prompt, points=points, labels=labels, mask=None)


def click_alone(structure: str, click: Click) -> ObjectPrompt:
    """Return the prompt of a click on a slice that had no prompt yet."""
    nothing = ObjectPrompt(structure, click.slice, np.empty((0, 2), np.float32), np.empty(0, np.int32))
    return with_click(nothing, click)


def with_correction(prompts: Sequence[ObjectPrompt], click: Click) -> list[ObjectPrompt]:
    """Return an object's prompts on some slices with a click, which comes last."""
    there = [prompt for prompt in prompts if prompt.slice == click.slice]
    others = [prompt for prompt in prompts if prompt.slice != click.slice]
    return [*others, with_click(there[0], click) if there else click_alone(prompts[0].structure, click)]


def _deepest_error(
    mask: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[tuple[int, ...], int] | None:
    """Return the place of the click as indices of the array, and its label; None if there is no error.

    Of false negatives and false positives of equal size, the false negatives are corrected.
    """
    lacking = _largest_component(reference & ~mask)
    surplus = _largest_component(mask & ~reference)
    if lacking is not None and (surplus is None or lacking.size >= surplus.size):
        return _deepest_point(lacking, spacing), POSITIVE
    return None if surplus is None else (_deepest_point(surplus, spacing), NEGATIVE)


@dataclass(frozen=True)
class _Component:
    """A connected component: its bounding box in the array, and the component in that box (bool)."""

    box: tuple[slice, ...]
    inside: np.ndarray
    size: int


def _largest_component(error: np.ndarray) -> _Component | None:
    """Return the component with the most pixels or voxels; of equal ones, the one that comes first in C order.

    Pixels are connected if they touch by a side, an edge or a corner (8 neighbours in 2D, 26 in 3D), as in the
    challenges: a thin error that runs diagonally is one error. error: bool, of any number of dimensions.
    """
    around = _bounding_box(error)
    if around is None:
        return None
    labels, _ = ndimage.label(error[around], np.ones((3,) * error.ndim))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    # Components are numbered in the order of their first pixels, and argmax returns the first maximum.
    number = int(sizes.argmax())
    part = ndimage.find_objects(labels, max_label=number)[number - 1]
    box = tuple(
        slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(around, part, strict=True)
    )
    return _Component(box, labels[part] == number, int(sizes[number]))


def _bounding_box(error: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box that holds all of the error; None if there is none."""
    if not error.any():
        return None
    axes = range(error.ndim)
    shadows = [np.flatnonzero(error.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(shadow[0]), int(shadow[-1]) + 1) for shadow in shadows)


def _deepest_point(component: _Component, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the point with the largest distance, in millimetres, to what is outside; the first one in C order.

    The border of the frame or volume counts as outside, as in SAM 2's training: nobody clicks on the very edge of an
    image, where half of what surrounds the click could not be seen.
    """
    # One pixel of outside around the component is all that its depths depend on.
    depths = ndimage.distance_transform_edt(np.pad(component.inside, 1), sampling=tuple(spacing))
    place = np.unravel_index(int(depths.argmax()), depths.shape)
    return tuple(int(index) - 1 + side.start for index, side in zip(place, component.box, strict=True))
