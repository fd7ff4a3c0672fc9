"""Surfaces lie where the masks' borders are, in millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from volprompt.report.meshes import Mesh, block_means, normals, signed_distances, simplify, surface


def ball(radius: float, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), reach: float = 24.0) -> np.ndarray:
    """A ball about the middle of a cube that reaches `reach` millimetres to all sides."""
    axes = [np.arange(-reach, reach + mm / 2, mm) for mm in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def test_block_means_count_what_lies_beyond_as_not_set() -> None:
    mask = np.zeros((3, 2, 2), dtype=bool)
    mask[0] = True  # 4 of the first block's 8 voxels
    mask[2, 0, 0] = True  # 1 of 4 voxels, of a block that is half beyond the mask
    assert block_means(mask, (2, 2, 2)).ravel().tolist() == [4 / 8, 1 / 8]


def test_a_box_reaches_to_the_outer_edges_of_its_voxels() -> None:
    mask = np.zeros((12, 40, 30), dtype=bool)
    mask[3:9, 8:32, 10:20] = True
    spacing = (3.0, 0.5, 1.0)
    found = surface(mask, spacing, cell_mm=1.0)
    assert found is not None
    # Voxel i reaches from i - 1/2 to i + 1/2 spacings. Along y two voxels make a block; the box's edges are blocks'.
    low, high = found.vertices.min(axis=0), found.vertices.max(axis=0)
    np.testing.assert_allclose(low, [2.5 * 3, 7.5 * 0.5, 9.5 * 1], atol=1e-6)
    np.testing.assert_allclose(high, [8.5 * 3, 31.5 * 0.5, 19.5 * 1], atol=1e-6)


def test_coarse_blocks_keep_a_ball_in_place_and_size() -> None:
    spacing = (2.0, 0.5, 0.5)
    found = surface(ball(16, spacing), spacing, cell_mm=2.0)
    assert found is not None
    apart = np.linalg.norm(found.vertices - 24.0, axis=1)
    assert apart.mean() == pytest.approx(16, abs=0.3)
    assert apart.min() > 14.5
    assert apart.max() < 17.5


def test_nothing_to_show() -> None:
    assert surface(np.zeros((4, 4, 4), dtype=bool), (1.0, 1.0, 1.0), cell_mm=4.0) is None


@pytest.mark.parametrize("slices", [1, 2])
def test_a_volume_of_one_or_two_slices_has_a_surface_with_two_sides(slices: int) -> None:
    disc = ball(16)[24:25].repeat(slices, axis=0)
    found = surface(disc, (0.7, 1.0, 1.0), cell_mm=2.0)
    assert found is not None
    small = simplify(found, 3.5)
    assert np.ptp(small.vertices[:, 0]) == pytest.approx(0.7 * slices, abs=0.36)
    apart = small.vertices[:, 1:] - 24.0
    assert np.linalg.norm(apart, axis=1).max() == pytest.approx(16, abs=1)
    # The sides look away from each other, so that both are lit and neither is hidden.
    facing = normals(small)[np.linalg.norm(apart, axis=1) < 8, 0]
    assert (facing > 0.9).any()
    assert (facing < -0.9).any()
    assert (abs(facing) > 0.9).all()


def test_a_sheet_that_fills_no_block_has_a_surface() -> None:
    sheet = np.zeros((24, 24, 24), dtype=bool)
    sheet[np.arange(24), np.arange(24)] = True  # one voxel thick, across the axes
    found = surface(sheet, (1.0, 1.0, 1.0), cell_mm=4.0)
    assert found is not None
    assert np.ptp(found.vertices, axis=0).min() > 20


def test_a_mask_at_the_border_is_closed() -> None:
    found = surface(np.ones((3, 4, 5), dtype=bool), (1.0, 1.0, 1.0), cell_mm=1.0)
    assert found is not None
    edges = np.sort(
        np.concatenate([found.triangles[:, [0, 1]], found.triangles[:, [1, 2]], found.triangles[:, [2, 0]]])
    )
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert set(count) == {2}  # every edge belongs to two triangles


def test_normals_point_outwards() -> None:
    found = surface(ball(15), (1.0, 1.0, 1.0), cell_mm=1.0)
    assert found is not None
    radial = (found.vertices - 24.0) / np.linalg.norm(found.vertices - 24.0, axis=1, keepdims=True)
    along = np.einsum("ij,ij->i", normals(found), radial)
    assert along.min() > 0.7
    assert along.mean() > 0.95


def test_clustering_merges_a_cell_into_its_mean() -> None:
    # Two triangles on a square; the corners at x = 0 and x = 1 fall into one cell of 2, those at 10 into others.
    vertices = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 10], [0, 10, 0]], dtype=float)
    small = simplify(Mesh(vertices, np.array([[0, 1, 2], [1, 2, 3]])), cell_mm=2)
    assert small.vertices.tolist() == [[0, 0, 0.5], [0, 0, 10], [0, 10, 0]]
    assert small.triangles.tolist() == [[0, 1, 2]]  # the other has two corners in one cell


def test_triangles_that_become_equal_are_kept_once_and_in_order() -> None:
    # Cells in their order: 0 holds the first two corners, then 1 (x = 10), 2 (y = 10) and 3 (slice = 10).
    vertices = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 10], [0, 10, 0], [10, 0, 0]], dtype=float)
    triangles = np.array([[4, 0, 3], [2, 3, 0], [3, 1, 2], [3, 2, 1]])
    small = simplify(Mesh(vertices, triangles), cell_mm=2)
    # The second and the third are one now; the last is the other side of it.
    assert small.triangles.tolist() == [[0, 1, 2], [0, 2, 1], [0, 2, 3]]


def test_fewer_triangles_of_about_the_same_ball() -> None:
    found = surface(ball(15), (1.0, 1.0, 1.0), cell_mm=1.0)
    assert found is not None
    small = simplify(found, cell_mm=4)
    assert len(small.triangles) < len(found.triangles) / 5
    apart = np.linalg.norm(small.vertices - 24.0, axis=1)
    assert apart.mean() == pytest.approx(15, abs=0.5)


@pytest.mark.parametrize(("radius", "expected"), [(12, -3), (15, 0), (18, 3), (22, 7)])
def test_distances_between_balls(radius: float, expected: float) -> None:
    reference = surface(ball(15), (1.0, 1.0, 1.0), cell_mm=1.0)
    other = surface(ball(radius), (1.0, 1.0, 1.0), cell_mm=1.0)
    assert reference is not None
    assert other is not None
    apart = signed_distances(other.vertices, reference, near_mm=4.0)
    assert np.median(apart) == pytest.approx(expected, abs=0.3)
    if expected:
        assert (np.sign(apart) == np.sign(expected)).all()
