"""The phantoms look enough like knees to test with: anatomy, contrast, determinism and files."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.unit.command_line import volprompt

from volprompt.phantom.image import Contrast, Phantom, Side, make_phantom
from volprompt.phantom.knee import LABELS
from volprompt.phantom.study import write_phantom, write_study
from volprompt.study.sheets import read_volumes

SHAPE, SPACING = (40, 96, 96), (2.8, 1.46, 1.46)
SEEDS = (100, 101, 102)

# Plausible volumes in mL, within a field of view of 140 mm along the limb. Bones: a femur about 75 mm wide and
# 60 mm deep at the condyles is some 150-200 mL over its last 75 mm, a tibia of 75 x 50 mm at the plateau some
# 100-160 mL over its first 65 mm, and a patella of 40 x 42 x 20 mm about 15 mL. Cartilage: 2 to 2.5 mm over some
# 60 cm2 of the femur and 20 cm2 of the tibia. The margins leave room for small and large people.
VOLUMES = {
    "femur": (110, 260),
    "femoral_cartilage": (6, 25),
    "tibia": (90, 200),
    "tibial_cartilage": (2, 9),
    "patella": (9, 25),
}


@functools.cache
def knee(seed: int, contrast: Contrast = "dess", *, side: Side = "right", noise: float | None = None) -> Phantom:
    return make_phantom(seed, SHAPE, SPACING, contrast=contrast, side=side, noise=noise)


def count_pieces(mask: np.ndarray) -> int:
    """Connected components, diagonal neighbours included, of more than one voxel."""
    components, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return int(np.count_nonzero(np.bincount(components.ravel())[1:] > 1))


def test_types_shapes_and_affine() -> None:
    phantom = knee(100)
    assert phantom.image.shape == phantom.labels.shape == SHAPE
    assert phantom.image.dtype == np.float32
    assert phantom.labels.dtype == np.uint8
    assert phantom.image.min() >= 0
    assert phantom.image.max() < 5000
    assert nib.aff2axcodes(phantom.affine) == ("R", "A", "S")
    np.testing.assert_allclose(nib.affines.voxel_sizes(phantom.affine), SPACING)
    centre = nib.affines.apply_affine(phantom.affine, (np.array(SHAPE) - 1) / 2)
    np.testing.assert_allclose(centre, 0, atol=1e-9)


@pytest.mark.parametrize("contrast", ["dess", "random"])
def test_a_seed_gives_the_same_arrays_again(contrast: Contrast) -> None:
    again = make_phantom(100, SHAPE, SPACING, contrast=contrast, side="right")
    np.testing.assert_array_equal(again.image, knee(100, contrast).image)
    np.testing.assert_array_equal(again.labels, knee(100, contrast).labels)


def test_seeds_differ_in_anatomy_and_in_random_contrast() -> None:
    assert np.mean(knee(100).labels != knee(101).labels) > 0.01
    assert np.abs(knee(100, "random", noise=0).image - knee(100, "dess", noise=0).image).mean() > 10


def test_the_anatomy_depends_on_nothing_but_the_seed() -> None:
    np.testing.assert_array_equal(knee(100).labels, knee(100, "random", noise=0).labels)
    # Twice the voxel size: the same volume of each structure, up to the coarser sampling.
    coarse = make_phantom(100, (20, 48, 48), (5.6, 2.92, 2.92), side="right")
    for value in (LABELS["femur"], LABELS["tibia"], LABELS["patella"]):
        assert 8 * np.sum(coarse.labels == value) == pytest.approx(np.sum(knee(100).labels == value), rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_structures_have_plausible_volumes(seed: int) -> None:
    labels = knee(seed).labels
    assert set(np.unique(labels)) == {0, *LABELS.values()}
    for name, (least, most) in VOLUMES.items():
        assert least < np.sum(labels == LABELS[name]) * np.prod(SPACING) / 1000 < most, name


@pytest.mark.parametrize("seed", SEEDS)
def test_bones_leave_the_field_of_view_along_the_limb_and_not_across_it(seed: int) -> None:
    labels = knee(seed).labels
    assert not labels[:2].any()
    assert not labels[-2:].any()
    assert (labels[:, :, -1] == LABELS["femur"]).any()
    assert (labels[:, :, 0] == LABELS["tibia"]).any()
    assert not np.isin(labels[:, :, 0], (LABELS["femur"], LABELS["patella"])).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_bones_are_whole_and_apart(seed: int) -> None:
    labels = knee(seed).labels
    for name in ("femur", "tibia", "patella"):
        assert count_pieces(labels == LABELS[name]) == 1, name
    around_femur = ndimage.binary_dilation(labels == LABELS["femur"])
    assert not np.isin(labels[around_femur], (LABELS["tibia"], LABELS["patella"])).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_femur_ends_in_two_condyles_and_the_patella_lies_in_front(seed: int) -> None:
    labels = knee(seed).labels
    femur = labels == LABELS["femur"]
    assert any(count_pieces(femur[:, :, k]) == 2 for k in range(SHAPE[2]))  # axial planes through the notch
    # In sagittal planes the femur is deeper through a condyle than between the condyles.
    deepest = [np.ptp(np.flatnonzero(plane.any(axis=1))) for plane in femur if plane.any()]
    middle = len(deepest) // 2
    assert min(deepest[middle - 3 : middle + 3]) < 0.8 * max(deepest)
    front = {name: np.argwhere(labels == LABELS[name])[:, 1] for name in ("femur", "patella")}
    assert np.median(front["patella"]) > front["femur"].max()


@pytest.mark.parametrize("seed", SEEDS)
def test_cartilage_lies_between_the_bones(seed: int) -> None:
    labels = knee(seed).labels
    for bone, cartilage in (("femur", "femoral_cartilage"), ("tibia", "tibial_cartilage")):
        reach = ndimage.distance_transform_edt(labels != LABELS[bone], sampling=SPACING)
        assert reach[labels == LABELS[cartilage]].max() < 5
    tibia_top = np.argwhere(labels == LABELS["tibia"])[:, 2].max()
    assert np.median(np.argwhere(labels == LABELS["tibial_cartilage"])[:, 2]) < tibia_top + 2


def test_a_left_knee_is_the_mirror_of_the_right_one() -> None:
    right, left = knee(100), knee(100, side="left")
    np.testing.assert_array_equal(left.labels, right.labels[::-1])
    np.testing.assert_array_equal(left.image, right.image[::-1])
    assert (right.labels != left.labels).any()


def test_the_side_is_drawn_where_none_is_given() -> None:
    grid = (10, 24, 24), (11.2, 5.84, 5.84)
    right = [
        np.array_equal(make_phantom(seed, *grid).labels, make_phantom(seed, *grid, side="right").labels)
        for seed in range(8)
    ]
    assert any(right)
    assert not all(right)


def test_dess_contrast_without_noise() -> None:
    phantom = knee(100, noise=0)
    femur = phantom.labels == LABELS["femur"]
    marrow = phantom.image[ndimage.binary_erosion(femur, iterations=3)].mean()
    cortex = phantom.image[femur & ~ndimage.binary_erosion(femur)].mean()
    assert cortex < marrow
    for name in ("femoral_cartilage", "tibial_cartilage"):
        assert phantom.image[phantom.labels == LABELS[name]].mean() > 1.5 * marrow
    assert np.median(phantom.image[:, -1, 0]) < 0.2 * marrow  # air


def test_noise_raises_the_air() -> None:
    quiet, loud = knee(100, noise=0).image[:, -1, 0], knee(100, noise=40).image[:, -1, 0]
    assert quiet.max() < 10 < loud.mean()


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "LPS"])
def test_stored_orientation_keeps_every_voxel_in_its_place(tmp_path: Path, orientation: str) -> None:
    phantom = knee(101)
    paths = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    write_phantom(phantom, *paths, orientation)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for path, array in zip(paths, (phantom.image, phantom.labels), strict=True):
        stored = nib.Nifti1Image.from_filename(path)
        assert "".join(nib.aff2axcodes(stored.affine)) == orientation
        canonical = nib.as_closest_canonical(stored)
        np.testing.assert_array_equal(np.asarray(canonical.dataobj), array)
        np.testing.assert_allclose(canonical.affine, phantom.affine, atol=1e-4)


def test_study_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sheet = write_study("study", range(3), (10, 24, 24), (11.2, 5.84, 5.84))
    assert sheet == Path("study/volumes.tsv")
    with sheet.open() as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        rows = list(reader)
    assert reader.fieldnames == ["volume", "image", "reference", "group"]
    assert [row["volume"] for row in rows] == ["phantom_000", "phantom_001", "phantom_002"]
    assert rows[0]["image"] == "study/phantom_000_image.nii.gz"
    assert all(Path(row[kind]).is_file() for row in rows for kind in ("image", "reference"))
    assert len({nib.aff2axcodes(nib.Nifti1Image.from_filename(row["image"]).affine) for row in rows}) == 3


def test_paths_in_the_sheet_become_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sheet = write_study("=study", range(1), (10, 24, 24), (11.2, 5.84, 5.84))
    assert "\t'=study/phantom_000_image.nii.gz\t'=study/" in sheet.read_text()
    faults: list[str] = []
    (row,) = read_volumes(str(sheet), False, faults)
    assert row.image == "=study/phantom_000_image.nii.gz"
    assert not faults


def test_command_line_skips_a_complete_study_and_mends_a_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["phantom", str(tmp_path), "--count", "2", "--first-seed", "7"]
    command += ["--shape", "10", "24", "24", "--spacing", "11.2", "5.84", "5.84"]
    assert volprompt(*command) == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2
    assert "already" not in first
    image = tmp_path / "phantom_007_image.nii.gz"
    before = image.stat().st_mtime_ns
    assert volprompt(*command) == 0
    assert capsys.readouterr().out.count("already there") == 2
    assert image.stat().st_mtime_ns == before
    (tmp_path / "phantom_008_labels.nii.gz").unlink()
    assert volprompt(*command) == 0
    assert "already" not in capsys.readouterr().out
    assert (tmp_path / "phantom_008_labels.nii.gz").exists()
