"""Masks lie on the voxels, and in the world, where the image lies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from volprompt.segmentation import masks
from volprompt.segmentation.masks import mask_path, read_mask, read_rounds, write_mask, write_rounds
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import grid_of_row, read_frames, read_volume_table
from volprompt.volumes.grid import Grid

SHAPE = (2, 8, 16)
# Stored voxel axes -> world: plain, flipped, permuted, and permuted with a flip; one row per world axis.
DIRECTIONS = {
    "RAS": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "LPS": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "PIR": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
    "SRA": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    "AIL": [[0, 0, -1], [1, 0, 0], [0, -1, 0]],
}


def voxels() -> np.ndarray:
    """Every grey value once, in no order."""
    return np.random.default_rng(3).permutation(256).reshape(SHAPE).astype(np.int16)


def rotation(degrees: float) -> np.ndarray:
    """Around S, then by half as much around R."""
    turn, tilt = np.radians(degrees), np.radians(degrees / 2)
    around_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    around_r = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return around_s @ around_r


def affine_of(codes: str, degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ DIRECTIONS[codes] @ np.diag([3.0, 1.0, 0.5])
    affine[:3, 3] = -12.5, 7.25, 30.0
    return affine


def converted_rows(image: Path, folder: Path, axis: str = "sagittal") -> list[Any]:
    frames = {"axis": axis, "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard([{"volume": "knee", "image": str(image), "reference": ""}], frames, {}, folder)
    return list(read_volume_table(folder).itertuples())


def converted(image: Path, folder: Path, axis: str = "sagittal") -> tuple[np.ndarray, Grid]:
    (row,) = converted_rows(image, folder, axis)
    assert row.status == "ok", row.reason
    return read_frames(folder, "knee"), grid_of_row(row)


def test_path_of_a_mask() -> None:
    path = mask_path("results/masks/e/m/003", "point_video", "knee-7", "femur")
    assert path == Path("results/masks/e/m/003/point_video/knee-7_label-femur_mask.nii.gz")


@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("codes", DIRECTIONS)
def test_a_mask_lies_on_the_voxels_it_was_seen_on(tmp_path: Path, codes: str, degrees: float, axis: str) -> None:
    affine = affine_of(codes, degrees)
    assert "".join(nib.aff2axcodes(affine)) == codes
    nib.save(nib.Nifti1Image(voxels(), affine), tmp_path / "image.nii")
    frames, grid = converted(tmp_path / "image.nii", tmp_path / "000", axis)
    path = tmp_path / "mask.nii.gz"
    write_mask(frames > 100, grid, path)
    written, source = nib.load(path), nib.load(tmp_path / "image.nii")
    # Percentiles 0 and 100 of the values 0..255: the frames show each value as it is.
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels() > 100)
    np.testing.assert_array_equal(written.affine, source.affine)
    np.testing.assert_array_equal(read_mask(path, grid), frames > 100)


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "image.img", "image.nii2.nii"])
@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (1, 0), (0, 4), (2, 1), (1, 3), (0, 0)])
def test_qform_sform_and_codes_are_the_images(tmp_path: Path, name: str, qform: int, sform: int) -> None:
    kind = {"image.img": nib.Nifti1Pair, "image.nii2.nii": nib.Nifti2Image}.get(name, nib.Nifti1Image)
    image = kind(voxels(), None)
    image.header.set_zooms((3, 1, 0.5))
    # The two differ, as after a registration that only the sform holds.
    image.set_qform(affine_of("LPS", 20) if qform else None, qform)
    image.set_sform(affine_of("LPS", 17) if sform else None, sform)
    nib.save(image, tmp_path / name)
    frames, grid = converted(tmp_path / name, tmp_path / "000")
    write_mask(frames > 100, grid, tmp_path / "mask.nii.gz")
    written, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / name)
    assert int(written.header["qform_code"]) == qform
    assert int(written.header["sform_code"]) == sform
    rounding = 1e-6 if kind is nib.Nifti2Image else 0  # NIfTI-2 has doubles, the masks' NIfTI-1 has floats
    for ours, images in (
        (written.affine, source.affine),
        (written.get_qform(), source.get_qform()),
        (written.get_sform(), source.get_sform()),
    ):
        np.testing.assert_allclose(ours, images, rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels() > 100)


def test_another_format_gives_masks_in_the_same_place(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(voxels(), affine_of("PIR", 20)), tmp_path / "image.mgz")
    frames, grid = converted(tmp_path / "image.mgz", tmp_path / "000")
    write_mask(frames > 100, grid, tmp_path / "mask.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, nib.load(tmp_path / "image.mgz").affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels() > 100)


def test_a_mask_holds_zero_and_one_whatever_the_image_held(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels() * 0.25 - 40, affine_of("RAS", 0))
    image.set_data_dtype(np.int16)  # stored with slope and intercept
    image.header["cal_max"] = 900
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Name of the patient"))
    nib.save(image, tmp_path / "image.nii")
    frames, grid = converted(tmp_path / "image.nii", tmp_path / "000")
    write_mask(frames > 100, grid, tmp_path / "mask.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert np.unique(np.asarray(written.dataobj)).tolist() == [0, 1]
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    assert float(written.header["cal_max"]) == 1
    assert written.header.get_xyzt_units()[0] == image.header.get_xyzt_units()[0]


@pytest.mark.parametrize("codes", DIRECTIONS)
@pytest.mark.parametrize("width", [8, 13, 21])
@pytest.mark.parametrize("slab", [1, 2**20])
def test_masks_of_any_width(tmp_path: Path, codes: str, width: int, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Voxels travel eight at a time, and in slabs; the last of a row, or slab, may be fewer."""
    monkeypatch.setattr(masks, "SLAB", slab)
    image = np.zeros((width, width + 1, width + 2), np.uint8)
    image[::2, 1::3, ::5] = 200
    image[-1, -1, -1] = 200
    nib.save(nib.Nifti1Image(image, affine_of(codes, 0)), tmp_path / "image.nii")
    frames, grid = converted(tmp_path / "image.nii", tmp_path / "000")
    write_mask(frames > 100, grid, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), image > 0)


@pytest.mark.parametrize("codes", DIRECTIONS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_rounds_in_either_order_of_bytes(
    tmp_path: Path, codes: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rounds need two bytes for a voxel, in the order of the image's header; each voxel is in its own rounds."""
    monkeypatch.setattr(masks, "SLAB", 1)
    image = np.random.default_rng(0).integers(0, 2**10, (11, 12, 21)).astype(np.int16)
    header = nib.Nifti1Header(endianness=order)
    nib.save(nib.Nifti1Image(image, affine_of(codes, 0), header), tmp_path / "image.nii")
    (row,) = converted_rows(tmp_path / "image.nii", tmp_path / "000")
    grid = grid_of_row(row)
    rounds = [grid.to_frames(image >> number & 1 > 0) for number in range(10)]
    write_rounds([np.packbits(mask, axis=-1) for mask in rounds], grid, tmp_path / "rounds.nii.gz")
    written = nib.load(tmp_path / "rounds.nii.gz")
    assert written.get_data_dtype() == np.dtype("u2").newbyteorder(order)
    np.testing.assert_array_equal(np.asarray(written.dataobj), image)
    np.testing.assert_array_equal(read_rounds(tmp_path / "rounds.nii.gz", grid), rounds)


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nib.save(nib.Nifti1Image(voxels(), np.eye(4)), tmp_path / "image.nii.gz")
    frames, grid = converted(tmp_path / "image.nii.gz", tmp_path / "volumes")
    write_mask(frames > 100, grid, tmp_path / "first.nii.gz")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_mask(frames > 100, grid, tmp_path / "second.nii.gz")
    assert (tmp_path / "first.nii.gz").read_bytes() == (tmp_path / "second.nii.gz").read_bytes()


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(tmp_path: Path, value: bool) -> None:
    nib.save(nib.Nifti1Image(voxels(), affine_of("SRA", 0)), tmp_path / "image.nii")
    frames, grid = converted(tmp_path / "image.nii", tmp_path / "000")
    mask = np.full(frames.shape, value)
    write_mask(mask, grid, tmp_path / "scheme" / "mask.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "scheme" / "mask.nii.gz", grid), mask)
    assert [path.name for path in (tmp_path / "scheme").iterdir()] == ["mask.nii.gz"]
