"""Masks as triangle surfaces in millimetres, coarse enough for a page.

Coordinates are (slice, y, x) in millimetres: the index of a voxel's centre times the spacing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    vertices: float64 (n, 3), (slice, y, x) in millimetres.
    triangles: int64 (m, 3), indices of vertices, counter-clockwise from outside if (slice, y, x) is right-handed.
    """

    vertices: np.ndarray
    triangles: np.ndarray


def block_means(mask: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the share of set voxels in blocks: float32 (slice, y, x).

    mask: bool (slice, y, x); factors: voxels of a block along these axes. What lies beyond the mask is not set.
    """
    total = np.pad(mask, [(0, -size % factor) for size, factor in zip(mask.shape, factors, strict=True)])
    total = total.astype(np.uint16)
    for axis, factor in enumerate(factors):
        # Sums of strided views: far faster than a sum over a short last axis.
        index: list[slice] = [slice(None)] * 3
        parts = []
        for start in range(factor):
            index[axis] = slice(start, None, factor)
            parts.append(total[tuple(index)])
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
    return total.astype(np.float32) / float(np.prod(factors))


def surface(mask: np.ndarray, spacing: Sequence[float], cell_mm: float) -> Mesh | None:
    """Return the surface of a mask by marching cubes (Lewiner 2003, scikit-image).

    mask: bool (slice, y, x).
    spacing: millimetres along these axes.
    cell_mm: size of the blocks in which voxels are averaged first, so that the surface follows the filled share of a
        block and not its corners. A mask that is too thin to fill half of any block gets smaller ones.

    None for an empty mask.
    """
    from skimage.measure import marching_cubes

    size = np.array(spacing, dtype=np.float64)
    if not mask.any():
        return None
    factors = np.clip(np.rint(cell_mm / size).astype(int), 1, mask.shape)
    while not (means := block_means(mask, factors.tolist())).max() > 0.5:
        factors = np.maximum(1, factors // 2)
    filled = np.pad(means, 1)
    corners, triangles, _, _ = marching_cubes(filled, 0.5)
    # Block k holds the voxels k f to k f + f - 1, so its centre is k f + (f - 1) / 2; the padding shifts it by one.
    vertices = ((corners.astype(np.float64) - 1) * factors + (factors - 1) / 2) * size
    return _face_outwards(Mesh(vertices, triangles.astype(np.int64)))


def simplify(whole: Mesh, cell_mm: float) -> Mesh:
    """Merge the vertices in each cell of a grid into their mean, and drop triangles that collapse.

    Vertex clustering (Rossignac and Borrel 1993). Vertices are in the order of their cells. Along each axis a cell is
    at most half as long as the surface, so that the two sides of a thin one stay apart.
    """
    extent = np.ptp(whole.vertices, axis=0)
    sides = np.where(extent > 0, np.minimum(cell_mm, extent / 2), cell_mm)
    cells = np.floor((whole.vertices - whole.vertices.min(axis=0)) / sides).astype(np.int64)
    numbers = np.ravel_multi_index(tuple(cells.T), cells.max(axis=0) + 1)  # sorted far faster than rows
    _, owner, count = np.unique(numbers, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(owner, whole.vertices[:, axis]) / count for axis in range(3)], axis=1)
    triangles = owner[whole.triangles]
    kept = (
        (triangles[:, 0] != triangles[:, 1])
        & (triangles[:, 1] != triangles[:, 2])
        & (triangles[:, 2] != triangles[:, 0])
    )
    triangles = triangles[kept]
    # The smallest vertex first, without turning the triangle over: equal triangles become equal rows.
    turn = triangles.argmin(axis=1)
    triangles = np.take_along_axis(triangles, (turn[:, None] + np.arange(3)) % 3, axis=1)
    _, different = np.unique(np.ravel_multi_index(tuple(triangles.T), (len(means),) * 3), return_index=True)
    return Mesh(means, triangles[different])


def normals(whole: Mesh) -> np.ndarray:
    """Return outward unit normals of the vertices, float64 (n, 3): means over their triangles, weighted by area."""
    a, b, c = (whole.vertices[whole.triangles[:, corner]] for corner in range(3))
    facing = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(whole.triangles.ravel(), np.repeat(facing[:, axis], 3), len(whole.vertices)) for axis in range(3)],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 0)


def signed_distances(points: np.ndarray, other: Mesh, near_mm: float) -> np.ndarray:
    """Return the distances of points to a surface, float64 (n,): positive outside, negative inside.

    points: (n, 3) in millimetres; other: the surface. Up to `near_mm` from the nearest vertex, the distance is that to
    the plane through the vertex, which does not depend on the density of the vertices; further away it is that to the
    vertex.
    """
    apart, nearest = cKDTree(other.vertices).query(points)
    along = np.einsum("ij,ij->i", points - other.vertices[nearest], normals(other)[nearest])
    return np.where(apart <= near_mm, along, np.copysign(apart, along))


def _face_outwards(whole: Mesh) -> Mesh:
    """Turn the triangles counter-clockwise as seen from outside, so that the enclosed volume is positive."""
    a, b, c = (whole.vertices[whole.triangles[:, corner]] for corner in range(3))
    if np.einsum("ij,ij->", a, np.cross(b, c)) < 0:
        return Mesh(whole.vertices, whole.triangles[:, ::-1])
    return whole
