"""Implicit shapes in millimetres: negative inside, about the distance to the surface outside."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray
Triple = tuple[float, float, float]


def smooth_step(values: Array, start: float, stop: float) -> Array:
    """Smooth step from 0 at `start` to 1 at `stop`; `stop` may be the smaller."""
    t = np.clip((values - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)


def bump(values: Array, width: float) -> Array:
    return np.exp(-np.square(values / width))


def join(first: Array, second: Array, blend: float) -> Array:
    """Union of two shapes with a fillet of about `blend` mm."""
    overlap = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap / (4 * blend)


def cut(first: Array, second: Array, blend: float) -> Array:
    """Intersection of two shapes with an edge rounded by about `blend` mm."""
    return -join(-first, -second, blend)


def rounded_box(u: Array, v: Array, radius: float | Array) -> Array:
    """Rectangle with rounded corners; u and v are the distances beyond its two pairs of sides."""
    u, v = u + radius, v + radius
    return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - radius


def rod(at: Sequence[Array], start: Sequence[float], stop: Sequence[float], first: float, last: float) -> Array:
    """Hull of two balls of radii `first` and `last`, in space or (two discs) in a plane."""
    length = math.dist(start, stop)
    slope = (first - last) / length
    rise = math.sqrt(1 - slope * slope)
    rays = [axis - origin for axis, origin in zip(at, start, strict=True)]
    along = sum((ray * (b - a) for ray, a, b in zip(rays, start, stop, strict=True)), np.float32(0)) / length
    square = sum((ray * ray for ray in rays), np.float32(0))
    across = np.sqrt(np.maximum(square - along * along, 0))
    side = rise * along - slope * across
    ends = np.where(side < 0, np.hypot(across, along) - first, np.hypot(across, along - length) - last)
    return np.where((side >= 0) & (side <= rise * length), across * rise + along * slope - first, ends)
