"""What an adapter is checked on, small random frames with prompts, and how a fault is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from volprompt.prompts.schemes import ObjectPrompt

SIZE = (44, 60)  # of frames: not square, and not a multiple of eight, as bits are packed
DEPTHS = (5, 3, 1)
LEAST_DICE = 0.999
Check = Callable[[], None]
FORMS = ("point", "points", "box", "box and point")
MASK_FORMS = ("mask", "empty mask")


class Violation(AssertionError):
    """What an adapter does against its contract."""


def require(holds: bool, fault: str) -> None:
    """Raise Violation unless something holds."""
    if not holds:
        raise Violation(fault)


def require_like(found: Any, kind: torch.dtype, shape: tuple[int, ...], what: str) -> None:
    """Raise Violation unless something is a tensor of a type and a shape."""
    is_one = isinstance(found, torch.Tensor)
    is_it = is_one and found.dtype == kind and tuple(found.shape) == shape
    here = f"{found.dtype} {tuple(found.shape)}" if is_one else type(found).__name__
    require(is_it, f"{what} is {here}; expected {kind} {shape}")


def require_same(first: np.ndarray, second: np.ndarray, what: str) -> None:
    """Raise Violation unless two masks are the same but for rounding."""
    total = int(first.sum()) + int(second.sum())
    dice = 2 * int((first & second).sum()) / total if total else 1.0
    require(dice >= LEAST_DICE, f"{what}: Dice {dice:.3f}, expected at least {LEAST_DICE}")


def frames_of(depth: int) -> np.ndarray:
    """Frames with an ellipse on noise, uint8 (slice, y, x): elsewhere on each slice, and brighter in deeper volumes."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    places = [centre_of(index) for index in range(depth)]
    inside = [((y - middle) / 9) ** 2 + ((x - centre) / 12) ** 2 < 1 for centre, middle in places]
    noise = np.random.default_rng(depth).integers(0, 20, (depth, *SIZE))
    return (noise + (85 + 30 * depth) * np.array(inside)).astype(np.uint8)


def centre_of(index: int) -> tuple[int, int]:
    """Where the ellipse of a slice is, (x, y)."""
    return 26 + 4 * index, 16 + 2 * index


def prompt_of(index: int, form: str, structure: str = "one") -> ObjectPrompt:
    """A prompt of a form on a slice: `point`, `points`, `box`, `box and point`, `mask`, `empty mask`."""
    x, y = centre_of(index)
    points: list[tuple[float, float]] = [(x + 0.5, y + 0.25)] if "point" in form else []
    labels = [1] * len(points)
    if form == "points":
        points, labels = [*points, (x - 6.0, y - 2.0), (3.0, 40.0)], [1, 1, 0]
    box = np.array([x - 12, y - 9, x + 12, y + 9], np.float32) if form.startswith("box") else None
    mask = None
    if form.endswith("mask"):
        mask = np.zeros(SIZE, bool)
        mask[y - 8 : y + 9, x - 11 : x + 12] = form == "mask"
    array = np.array(points, np.float32).reshape(-1, 2)
    return ObjectPrompt(structure, index, array, np.array(labels, np.int32), box, mask)
