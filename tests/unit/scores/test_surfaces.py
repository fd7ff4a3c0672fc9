"""Surface distances worked out by hand, and against the public tools on random and real masks."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice
from scipy import ndimage
from surface_distance import metrics

from volprompt.scores.surfaces import Gap, pooled_nsd, surface_of

ANISOTROPIC = (0.7, 0.365, 0.4)


def voxel(*at: int) -> np.ndarray:
    mask = np.zeros((4, 6, 9), dtype=bool)
    mask[at] = True
    return mask


def blob(seed: int, shape: tuple[int, int, int] = (20, 40, 30)) -> np.ndarray:
    """Rounded bodies of about a third of the volume, some of which touch its border."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, 3) > 0.02


def gap(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float, float]) -> Gap:
    return Gap.between(surface_of(first, spacing), surface_of(second, spacing))


def test_surface_of_one_voxel() -> None:
    """Its eight corners, half a voxel away along each axis, with equal areas, also at the volume's border."""
    surface = surface_of(voxel(0, 2, 3), (2.0, 1.0, 0.5))
    expected = {(2.0 * z, y, 0.5 * x) for z in (-0.5, 0.5) for y in (1.5, 2.5) for x in (2.5, 3.5)}
    assert {tuple(point) for point in surface.points} == expected
    np.testing.assert_allclose(surface.areas, surface.areas[0])


def test_no_surface_towards_ignored_voxels() -> None:
    """A bar of three voxels with ignored ones at one end has no surface at that end, and else all of it."""
    mask, ignored = np.zeros((2, 5, 5, 9), dtype=bool)
    mask[2, 2, 1:4] = True
    ignored[:, :, 4:] = True
    whole, cut = surface_of(mask, (1.0, 1.0, 1.0)), surface_of(mask, (1.0, 1.0, 1.0), ignored)
    assert {tuple(point) for point in cut.points} == {tuple(point) for point in whole.points}  # corners beside the bar
    ignored[:, :, 3:] = True
    ignored[2, 2, 3] = False
    alone = surface_of(mask, (1.0, 1.0, 1.0), ignored)
    assert {point[2] for point in alone.points} == {0.5, 1.5, 2.5}
    assert not len(surface_of(mask, (1.0, 1.0, 1.0), ~mask).points)


def test_surface_of_a_slice_between_ignored_ones() -> None:
    """Of a volume with one labelled slice, the outline on this slice remains."""
    mask, ignored = np.zeros((2, 5, 6, 7), dtype=bool)
    mask[2, 1:5, 1:5] = True
    ignored[[0, 1, 3, 4]] = True
    points = surface_of(mask, (2.0, 1.0, 1.0), ignored).points
    assert {tuple(point) for point in points} == {
        (z, y, x) for z in (3.0, 5.0) for y in np.arange(0.5, 5) for x in np.arange(0.5, 5) if {y, x} & {0.5, 4.5}
    }


def test_a_cube_at_the_border_of_the_volume() -> None:
    """A cube of 3 voxels a side on slices 0 to 2: with `ignore` its face on the border is gone, but for the rim.

    By marching cubes each inner point of a face has 1 mm2, of an edge sqrt(1/2), of a corner sqrt(3)/8. A cube of 3 has
    4 points in a face, 2 on an edge.
    """
    mask = np.zeros((6, 5, 5), dtype=bool)
    mask[:3, 1:4, 1:4] = True
    counted, ignored = (surface_of(mask, (1.0, 1.0, 1.0), border=border) for border in ("count", "ignore"))
    assert counted.areas.sum() == pytest.approx(6 * 4 + 12 * 2 * 0.5**0.5 + 8 * 3**0.5 / 8)
    assert ignored.areas.sum() == pytest.approx(counted.areas.sum() - 4)
    gone = {tuple(point) for point in counted.points} - {tuple(point) for point in ignored.points}
    assert gone == {(-0.5, y, x) for y in (1.5, 2.5) for x in (1.5, 2.5)}
    inside = np.roll(mask, 1, axis=0)
    whole = surface_of(inside, (1.0, 1.0, 1.0), border="ignore")
    assert whole.areas.sum() == pytest.approx(counted.areas.sum())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", ["first", "last"])
def test_no_side_of_the_border_is_a_surface(axis: int, end: str) -> None:
    """Slabs of 2 and 4 slices that fill the field of view: what remains are their inner faces, 2 slices apart."""
    first, second = np.zeros((2, 6, 6, 6), dtype=bool)
    first[:2], second[:4] = True, True
    masks = [np.moveaxis(mask[::-1] if end == "last" else mask, 0, axis) for mask in (first, second)]
    apart = Gap.between(*(surface_of(mask, (1.0, 1.0, 1.0), border="ignore") for mask in masks))
    assert (apart.nsd(1.9), apart.nsd(2.0), apart.hausdorff_mm(0.95), apart.assd_mm()) == (0, 1, 2, 2)
    counted = Gap.between(*(surface_of(mask, (1.0, 1.0, 1.0)) for mask in masks))
    assert counted.nsd(1.0) > 0.5  # sides and the face on the border, which nobody has drawn
    assert counted.assd_mm() < 1


def test_border_and_ignored_voxels_together() -> None:
    """A bar from the border to ignored voxels has its four sides and no end."""
    mask, ignored = np.zeros((2, 5, 5, 9), dtype=bool)
    mask[1:4, 1:4, :4] = True
    ignored[:, :, 4:] = True
    both = surface_of(mask, (1.0, 1.0, 1.0), ignored, "ignore")
    assert {tuple(point) for point in both.points} == {
        (z, y, x)
        for z in np.arange(0.5, 4)
        for y in np.arange(0.5, 4)
        for x in np.arange(-0.5, 4)
        if {z, y} & {0.5, 3.5}
    }
    assert not len(surface_of(np.ones((4, 4, 4), bool), (1.0, 1.0, 1.0), border="ignore").points)


@pytest.mark.parametrize(("axis", "millimetres"), [(0, 2.0), (1, 1.0), (2, 0.5)])
def test_two_voxels_three_apart(axis: int, millimetres: float) -> None:
    """Of each voxel's corners half are two voxels from the other voxel's nearest corner and half are three."""
    shift = [0, 0, 0]
    shift[axis] = 3
    there = gap(voxel(0, 1, 1), voxel(*(shift + np.array([0, 1, 1]))), (2.0, 1.0, 0.5))
    assert there.hausdorff_mm(0.95) == pytest.approx(3 * millimetres)
    assert there.hausdorff_mm(0.5) == pytest.approx(2 * millimetres)
    assert there.assd_mm() == pytest.approx(2.5 * millimetres)
    assert there.nsd(1.9 * millimetres) == 0
    assert there.nsd(2 * millimetres) == pytest.approx(0.5)
    assert there.nsd(3 * millimetres) == pytest.approx(1)


def test_equal_masks() -> None:
    same = gap(blob(0), blob(0), ANISOTROPIC)
    assert (same.nsd(0.0), same.hausdorff_mm(0.95), same.assd_mm()) == (1, 0, 0)


def test_one_empty_mask_is_infinitely_far() -> None:
    for pair in ((voxel(0, 0, 0), np.zeros((4, 6, 9), bool)), (np.zeros((4, 6, 9), bool), voxel(0, 0, 0))):
        alone = gap(*pair, ANISOTROPIC)
        assert (alone.nsd(10.0), alone.hausdorff_mm(0.95), alone.assd_mm()) == (0, math.inf, math.inf)


def test_two_empty_masks_are_undefined() -> None:
    nothing = gap(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool), ANISOTROPIC)
    assert all(math.isnan(value) for value in (nothing.nsd(1.0), nothing.hausdorff_mm(0.95), nothing.assd_mm()))


def test_surfaces_of_several_structures_together() -> None:
    """Two voxels of one structure three apart, and twice the same voxel of another: half of the area is at 0 mm."""
    apart = gap(voxel(0, 1, 1), voxel(0, 1, 4), (1.0, 1.0, 1.0))
    same = gap(voxel(2, 2, 2), voxel(2, 2, 2), (1.0, 1.0, 1.0))
    both = Gap.of_all([apart, same])
    assert both.nsd(2.0) == pytest.approx(0.75)
    assert both.assd_mm() == pytest.approx(1.25)
    assert both.hausdorff_mm(0.95) == pytest.approx(3)


def test_each_structure_at_its_own_tolerance() -> None:
    """Of the first structure half is at 2 mm and half at 3 mm; the second one has the same area, all of it right."""
    apart = gap(voxel(0, 1, 1), voxel(0, 1, 4), (1.0, 1.0, 1.0))
    same = gap(voxel(2, 2, 2), voxel(2, 2, 2), (1.0, 1.0, 1.0))
    assert pooled_nsd([(apart, 3.0), (same, 0.1)]) == pytest.approx(1)
    assert pooled_nsd([(apart, 2.0), (same, 0.1)]) == pytest.approx(0.75)
    assert pooled_nsd([(apart, 1.0), (same, 9.0)]) == pytest.approx(0.5)
    assert math.isnan(pooled_nsd([]))


def assert_agrees(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Nine decimals of DeepMind's surface-distance, and MONAI's surface Dice with its subvoxel surfaces."""
    ours = gap(first, second, spacing)
    theirs = metrics.compute_surface_distances(second, first, spacing)
    for tolerance in (0.0, 0.5, 1.0, 2.0):
        expected = metrics.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert ours.nsd(tolerance) == pytest.approx(expected, rel=1e-12)
    for percent in (50, 95, 100):
        assert ours.hausdorff_mm(percent / 100) == pytest.approx(
            metrics.compute_robust_hausdorff(theirs, percent), abs=1e-9
        )
    areas = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
    average = np.average(metrics.compute_average_surface_distance(theirs), weights=areas)
    assert ours.assd_mm() == pytest.approx(average, abs=1e-9)
    batch = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (first, second)]
    monai = compute_surface_dice(*batch, [1.0], include_background=True, spacing=spacing, use_subvoxels=True)
    assert ours.nsd(1.0) == pytest.approx(float(monai), abs=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), ANISOTROPIC, (3.0, 0.5, 0.9)])
@pytest.mark.parametrize("seed", [1, 2])
def test_public_tools_on_random_masks(seed: int, spacing: tuple[float, float, float]) -> None:
    assert_agrees(blob(seed), blob(seed) ^ (blob(seed + 10) & blob(seed + 20)), spacing)


@pytest.mark.real
def test_public_tools_on_real_bones(shared_data: Path) -> None:
    """The femur of a real knee against itself, grown on one side and moved by two voxels."""
    image = nib.load(shared_data / "knee_mr" / "kneebones3dify_label.nii.gz")
    labels = np.asarray(image.dataobj)
    bone = labels == np.unique(labels)[1]
    spacing = tuple(float(mm) for mm in image.header.get_zooms()[:3])
    changed = np.roll(bone, 2, axis=1) | (bone & (np.arange(bone.shape[0]) > bone.shape[0] // 2)[:, None, None])
    assert_agrees(changed, bone, spacing)
