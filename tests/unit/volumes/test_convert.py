"""Volumes become frames: orientation, grey values, references, and what is said of files that cannot be used."""

from __future__ import annotations

import errno
import gzip
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.unit.image_files import oblique, stored_as

from snakemake_logger_plugin_volprompt.joblogs import labels_left_out
from volprompt.identity import read_identity
from volprompt.volumes import convert
from volprompt.volumes.convert import LEFT_OUT, convert_shard, convert_volume, jpeg75, limits_of, to_grey
from volprompt.volumes.converted import grid_of_row, read_frames, read_reference, read_volume_table, same_images
from volprompt.volumes.images.image import VolumeError, damaged
from volprompt.volumes.references import structure_mask

SHAPE = (2, 8, 16)  # 256 voxels, so that with percentiles 0 and 100 the values 0..255 are their own grey values
SPACING = (3.0, 1.0, 2.0)
FRAMES = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
BONES = {"femur": [1], "tibia": [3]}


def anatomy() -> np.ndarray:
    """Every grey value once, in no order, on axes R, A, S."""
    return np.random.default_rng(7).permutation(256).reshape(SHAPE).astype(np.int16)


def affine_of(*, origin: tuple[float, float, float] = (-5.0, 7.0, 11.0)) -> np.ndarray:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = origin
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine_of() if affine is None else affine), path)
    return str(path)


def row(image: str | Path, reference: str | Path = "", volume: str = "knee") -> dict[str, str]:
    return {"volume": volume, "image": str(image), "reference": str(reference)}


def labels(*values: int) -> np.ndarray:
    """A label map that holds the given labels, the rest 0."""
    made = np.zeros(SHAPE, dtype=np.int16)
    made.flat[: len(values)] = values
    return made


@pytest.fixture
def image(tmp_path: Path) -> str:
    return save(tmp_path / "image.nii.gz", anatomy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "000"
    made.mkdir()
    return made


def frames_of(image: str, folder: Path, **settings: Any) -> np.ndarray:
    convert_volume(row(image), {**FRAMES, **settings}, BONES, folder)
    return read_frames(folder, "knee")


def failure(folder: Path, image: str | Path, reference: str | Path = "") -> str:
    with pytest.raises(VolumeError) as caught:
        convert_volume(row(image, reference), FRAMES, BONES, folder)
    assert list(folder.iterdir()) == []
    return str(caught.value)


# Orientation


def test_sagittal_frames_of_a_volume_on_axes_r_a_s(image: str, folder: Path) -> None:
    frames = frames_of(image, folder)
    assert frames.dtype == np.uint8
    assert frames.shape == (2, 16, 8)
    for index in range(2):
        np.testing.assert_array_equal(frames[index], anatomy()[index, ::-1, ::-1].T)


def test_coronal_frames_have_the_head_up_and_the_patients_left_on_the_right(image: str, folder: Path) -> None:
    frames = frames_of(image, folder, axis="coronal")
    assert frames.shape == (8, 16, 2)
    for index in range(8):
        np.testing.assert_array_equal(frames[index], anatomy()[::-1, index, ::-1].T)


def test_axial_frames_have_the_front_up_and_the_patients_left_on_the_right(image: str, folder: Path) -> None:
    frames = frames_of(image, folder, axis="axial")
    assert frames.shape == (16, 8, 2)
    for index in range(16):
        np.testing.assert_array_equal(frames[index], anatomy()[::-1, ::-1, index].T)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SRA", "AIL", "LAS", "RPI", "IPL"])
@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
def test_the_same_anatomy_gives_the_same_frames_however_it_is_stored(tmp_path: Path, codes: str, axis: str) -> None:
    made = {}
    for name in ("RAS", codes):
        array, affine = stored_as(name, anatomy(), affine_of())
        folder = tmp_path / name
        folder.mkdir()
        path = save(folder / "image.nii", array, affine)
        found = convert_volume(row(path), {**FRAMES, "axis": axis}, BONES, folder)
        assert found["orientation"] == name
        made[name] = read_frames(folder, "knee"), found["spacing"], nib.load(folder / "knee_frames.nii").affine
    for ours, expected in zip(made[codes], made["RAS"], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(("axis", "plane"), [(0, "coronal"), (1, "axial"), (2, "sagittal")])
def test_a_stored_axis_gives_the_frames_of_its_plane(tmp_path: Path, folder: Path, axis: int, plane: str) -> None:
    # P, I, R: axis 0 runs front to back, 1 head to feet, 2 left to right.
    path = save(tmp_path / "image.nii", *stored_as("PIR", anatomy(), affine_of()))
    by_number = frames_of(path, folder, axis=axis)
    np.testing.assert_array_equal(by_number, frames_of(path, folder, axis=plane))


def test_spacing_and_shape_are_those_of_the_frames(image: str, folder: Path) -> None:
    found = convert_volume(row(image), FRAMES, BONES, folder)
    assert found["shape"] == [2, 16, 8]  # slices along R, y along S, x along A
    assert found["spacing"] == pytest.approx([3.0, 2.0, 1.0])
    assert found["source_shape"] == [2, 8, 16]


@pytest.mark.parametrize("codes", ["RAS", "PIR", "SLP"])
@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
def test_frames_and_reference_lie_where_the_image_lies(tmp_path: Path, folder: Path, codes: str, axis: str) -> None:
    array, affine = stored_as(codes, np.zeros(SHAPE, dtype=np.int16), oblique(SPACING))
    marked = tuple(size - 2 for size in array.shape)
    array = array.copy()
    array[marked] = 1
    path = save(tmp_path / "image.nii", array, affine)
    reference = save(tmp_path / "reference.nii", array, affine)
    convert_volume(row(path, reference), {**FRAMES, "axis": axis}, BONES, folder)
    expected = affine @ [*marked, 1]
    for name in ("knee_frames.nii", "knee_reference.nii.gz"):
        made = nib.load(folder / name)
        (position,) = np.argwhere(np.asarray(made.dataobj) > 0)
        np.testing.assert_allclose(made.affine @ [*position, 1], expected, atol=1e-4)


def test_the_grid_survives_the_volume_table(tmp_path: Path, folder: Path) -> None:
    array, affine = stored_as("PIR", anatomy(), oblique(SPACING))
    path = save(tmp_path / "image.nii", array, affine)
    convert_shard([row(path)], FRAMES, BONES, folder)
    grid = grid_of_row(next(read_volume_table(folder).itertuples()))
    frames = read_frames(folder, "knee")
    assert grid.frames_shape == frames.shape
    np.testing.assert_array_equal(grid.to_source(frames), array)
    np.testing.assert_array_equal(grid.to_frames(array), frames)
    np.testing.assert_allclose(grid.frames_affine, nib.load(folder / "knee_frames.nii").affine, atol=1e-4)


# Grey values


def test_window_by_hand() -> None:
    # Percentiles 25 and 75 of 0..8 are the values at positions 2 and 6. Between them 4 steps of 255 / 4 = 63.75:
    # 63.75 -> 64, 127.5 -> 128 (the even neighbour), 191.25 -> 191.
    voxels = np.arange(9, dtype=np.float32)
    low, high = limits_of(voxels, {"intensity_percentiles": (25, 75)}, "image")
    grey = to_grey(voxels, low, high)
    assert (low, high) == (2.0, 6.0)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 0, 64, 128, 191, 255, 255, 255]


def test_window_interpolates_between_values() -> None:
    # Position of the 10th percentile of 5 values: 0.1 * 4 = 0.4, so 0.4 of the way from 0 to 10; the 90th likewise.
    voxels = np.array([40, 0, 30, 10, 20], dtype=np.float32)
    low, high = limits_of(voxels, {"intensity_percentiles": (10, 90)}, "image")
    assert (low, high) == (pytest.approx(4.0), pytest.approx(36.0))


def test_window_leaves_the_voxels_as_they_are() -> None:
    voxels = np.arange(9, dtype=np.float32)
    to_grey(voxels, 2, 6)
    assert voxels.tolist() == list(range(9))


def ct(path: Path, values: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values.astype(np.int16), affine_of()), path)
    return path


CT = {**FRAMES, "intensity_percentiles": [0.5, 99.5], "window": [-160, 240]}


def test_ct_window(tmp_path: Path, folder: Path) -> None:
    """Hounsfield units become grey by the window alone: -160 and 240 are 0 and 255, 40 is 200 / 400 of the way."""
    values = np.full(anatomy().shape, -1000)
    values.flat[:3] = 40, 3000, 140
    found = convert_volume(row(ct(tmp_path / "image.nii", values)), CT, BONES, folder)
    assert (found["window_low"], found["window_high"]) == (-160, 240)
    greys = np.unique(read_frames(folder, "knee"))
    assert greys.tolist() == [0, 128, 191, 255]  # 127.5 goes to the even neighbour, 191.25 down
    assert found["warnings"] == []


def test_a_window_that_shows_nothing(tmp_path: Path, folder: Path) -> None:
    path = ct(tmp_path / "image.nii", np.full(anatomy().shape, 240))
    with pytest.raises(VolumeError, match=r"\(240 to 240\) lie outside of the window \(-160 to 240\)"):
        convert_volume(row(path), CT, BONES, folder)


def test_intensities_that_are_no_hounsfield_units(tmp_path: Path, folder: Path) -> None:
    """A CT has air, far below any window; numbers that begin at 0 are an MR image, or lack the rescale intercept."""
    path = ct(tmp_path / "image.nii", np.arange(anatomy().size).reshape(anatomy().shape))
    found = convert_volume(row(path), CT, BONES, folder)
    assert found["warnings"] == [
        f"{path}: no intensity lies below the window (-160); the lowest is 0: is this a CT in Hounsfield units?"
    ]


def test_negative_and_scaled_intensities(tmp_path: Path, folder: Path) -> None:
    picture = nib.Nifti1Image(anatomy().astype(np.float64) * 0.5 - 1000, affine_of())
    picture.set_data_dtype(np.int16)  # stored as integers with slope and intercept
    nib.save(picture, tmp_path / "image.nii")
    assert nib.load(tmp_path / "image.nii").dataobj.slope != 1
    found = convert_volume(row(tmp_path / "image.nii"), FRAMES, BONES, folder)
    assert found["window_low"] == pytest.approx(-1000, abs=0.01)
    assert found["window_high"] == pytest.approx(-1000 + 127.5, abs=0.01)
    np.testing.assert_allclose(read_frames(folder, "knee")[0], anatomy()[0, ::-1, ::-1].T, atol=1)


def test_jpeg_at_quality_75() -> None:
    flat = np.full((1, 16, 16), 128, dtype=np.uint8)
    np.testing.assert_array_equal(jpeg75(flat), flat)
    ramp = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8), (2, 32, 48))
    made = jpeg75(ramp)
    assert made.shape == ramp.shape
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - ramp).max() <= 8
    noise = np.random.default_rng(1).integers(0, 256, (1, 64, 64)).astype(np.uint8)
    assert np.abs(jpeg75(noise).astype(int) - noise).mean() > 2


def test_jpeg_changes_the_frames_alone(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii.gz", labels(1, 3))
    convert_volume(row(image, reference), {**FRAMES, "coding": "jpeg75"}, BONES, folder)
    lossless = np.stack([anatomy()[index, ::-1, ::-1].T for index in range(2)])
    assert (read_frames(folder, "knee") != lossless).any()
    stored = read_reference(folder, "knee")
    assert stored is not None
    # Labels 1 and 3 are voxels 0 and 1 from the bottom at the very back: y counts from the top, x from the front.
    assert stored[0, 15, 7] == 1
    assert stored[0, 14, 7] == 3
    assert np.count_nonzero(stored) == 2


# Files


def test_the_row_of_a_volume(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii.gz", labels(1, 3))
    found = convert_volume(row(image, reference), FRAMES, BONES, folder)
    assert found["status"] == "ok"
    assert found["sha256"] == hashlib.sha256(Path(image).read_bytes()).hexdigest()
    assert found["reference_sha256"] == hashlib.sha256(Path(reference).read_bytes()).hexdigest()
    assert found["warnings"] == []
    assert {path.name for path in folder.iterdir()} == {"knee_frames.nii", "knee_reference.nii.gz"}


def test_a_volume_without_reference(image: str, folder: Path) -> None:
    found = convert_volume(row(image), FRAMES, BONES, folder)
    assert found["reference_sha256"] == ""
    assert read_reference(folder, "knee") is None


def test_a_series_of_one_volume_is_a_volume(tmp_path: Path, folder: Path) -> None:
    path = save(tmp_path / "image.nii.gz", anatomy()[..., None])
    np.testing.assert_array_equal(frames_of(path, folder)[0], anatomy()[0, ::-1, ::-1].T)


def test_the_reference_keeps_configured_labels_alone(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii.gz", labels(1, 2, 3, 4, 1))
    found = convert_volume(row(image, reference), FRAMES, BONES, folder)
    stored = read_reference(folder, "knee")
    assert stored is not None
    assert np.issubdtype(stored.dtype, np.integer)
    assert sorted(stored[stored > 0].tolist()) == [1, 1, 3]
    assert found["warnings"] == [f"{reference}: label(s) 2, 4 belong to no structure and are left out"]


def test_a_structure_that_is_not_in_the_reference_is_a_warning(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii.gz", labels(1))
    found = convert_volume(row(image, reference), FRAMES, BONES, folder)
    assert found["warnings"] == [f"{reference}: structure 'tibia' (labels [3]) is empty"]


def test_a_header_without_orientation_is_a_warning(tmp_path: Path, folder: Path) -> None:
    picture = nib.Nifti1Image(anatomy(), None)
    picture.header.set_zooms(SPACING)
    nib.save(picture, tmp_path / "image.nii")
    stored = nib.load(tmp_path / "image.nii").header
    assert (int(stored["qform_code"]), int(stored["sform_code"])) == (0, 0)
    found = convert_volume(row(tmp_path / "image.nii"), FRAMES, BONES, folder)
    (warning,) = found["warnings"]
    assert warning == (
        f"{tmp_path / 'image.nii'}: the header says nothing about orientation; the stored axes are taken as R, A, S"
    )
    assert found["orientation"] == "RAS"


@pytest.mark.parametrize("value", [300, 65535])
def test_large_labels_are_kept(tmp_path: Path, image: str, folder: Path, value: int) -> None:
    reference = save(tmp_path / "reference.nii.gz", labels(1).astype(np.int32) * value)
    convert_volume(row(image, reference), FRAMES, {"femur": [value]}, folder)
    stored = read_reference(folder, "knee")
    assert stored is not None
    assert stored.max() == value
    assert structure_mask(stored, [value]).sum() == 1


def test_structure_mask_of_several_labels() -> None:
    reference = np.array([[[0, 1, 2, 3, 1]]], dtype=np.uint8)
    assert structure_mask(reference, [1, 3]).tolist() == [[[False, True, False, True, True]]]
    assert structure_mask(reference, [2]).tolist() == [[[False, False, True, False, False]]]


# What cannot be used


def test_a_missing_file(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "none.nii.gz"
    assert failure(folder, path) == f"{path}: no such file. Correct the path in the sample sheet"


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "image.txt"])
@pytest.mark.parametrize("content", [b"", b"this is not an image, but it is long enough for a header" * 20])
def test_a_file_that_is_no_image(tmp_path: Path, folder: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = failure(folder, path)
    assert message.startswith(f"{path}: cannot be read as an image")
    assert "expected NIfTI" in message


def test_a_folder_is_no_image(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "series").mkdir()
    assert "cannot be read as an image" in failure(folder, tmp_path / "series")


def test_a_header_that_makes_no_sense(tmp_path: Path, image: str, folder: Path) -> None:
    content = bytearray(gzip.decompress(Path(image).read_bytes()))
    content[70:72] = (9999).to_bytes(2, "little")  # the code of the data type
    path = tmp_path / "broken.nii"
    path.write_bytes(content)
    assert failure(folder, path).startswith(f"{path}: cannot be read as an image")


@pytest.mark.parametrize("series", [False, True])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_truncated_file(tmp_path: Path, folder: Path, kept: float, series: bool) -> None:
    noise = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32)
    path = Path(save(tmp_path / "image.nii.gz", noise[..., None] if series else noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    message = failure(folder, path)
    assert str(path) in message
    assert "damaged or cut off" in message or "cannot be read" in message


def test_a_truncated_uncompressed_file(tmp_path: Path, folder: Path) -> None:
    path = Path(save(tmp_path / "image.nii", anatomy()))
    path.write_bytes(path.read_bytes()[:-10])
    assert failure(folder, path).startswith(f"{path}: the file is damaged or cut off")


@pytest.mark.parametrize("shape", [(2, 8, 16, 3), (8, 16), (2, 8, 16, 1, 2)])
def test_other_than_three_dimensions(tmp_path: Path, folder: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "image.nii", np.ones(shape, dtype=np.int16))
    message = failure(folder, path)
    assert f"has {len(shape)} dimensions {shape}" in message
    assert "expected a 3D volume" in message


def test_colours_are_no_intensities(tmp_path: Path, folder: Path) -> None:
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = save(tmp_path / "image.nii", colours)
    assert failure(folder, path) == f"{path}: holds colours or complex numbers; expected one real number per voxel"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, folder: Path, value: float) -> None:
    voxels = anatomy().astype(np.float32)
    voxels[1, 2, 3] = voxels[1, 2, 4] = value
    path = save(tmp_path / "image.nii", voxels)
    message = failure(folder, path)
    assert message.startswith(f"{path}: 2 voxels are NaN or infinite, the first at (1, 2, 3)")


@pytest.mark.parametrize("brightest", [42, 142])
def test_an_image_without_contrast(tmp_path: Path, folder: Path, brightest: int) -> None:
    # Constant; or one bright voxel in 256, which lies beyond the 99th percentile.
    voxels = np.full(SHAPE, 42, dtype=np.int16)
    voxels[0, 0, 0] = brightest
    path = save(tmp_path / "image.nii", voxels)
    with pytest.raises(VolumeError, match="no contrast is left") as caught:
        convert_volume(row(path), {**FRAMES, "intensity_percentiles": [1, 99]}, BONES, folder)
    assert str(caught.value).startswith(f"{path}: the 1 and 99 percentiles of the intensities are both 42")


@pytest.mark.parametrize("entry", [0.0, np.nan])
def test_an_affine_that_spans_no_volume(tmp_path: Path, folder: Path, entry: float) -> None:
    path = Path(save(tmp_path / "image.nii", anatomy()))
    content = bytearray(path.read_bytes())
    content[280:296] = np.array([entry, 0, 0, -5], dtype="<f4").tobytes()  # the affine's first row
    path.write_bytes(content)
    assert failure(folder, path).startswith(f"{path}: the affine does not span a volume")


def test_a_reference_of_another_shape(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii", labels(1)[:, :, :-1])
    message = failure(folder, image, reference)
    assert message.startswith(f"{reference}: lies on another grid than {image}")
    assert "2 x 8 x 16 voxels" in message
    assert "2 x 8 x 15 voxels" in message
    assert "Resample" in message


def shifted(millimetres: float) -> np.ndarray:
    affine = affine_of()
    affine[0, 3] += millimetres
    return affine


def stretched(millimetres: float) -> np.ndarray:
    """Spacing along S so that the last of 16 voxels lies off by so much."""
    affine = affine_of()
    affine[2, 2] += millimetres / 15
    return affine


# The smallest edge of a voxel is 1 mm, so a corner may lie off by 0.1 mm.
@pytest.mark.parametrize("move", [shifted, stretched])
def test_a_reference_just_within_the_tolerance(
    tmp_path: Path, image: str, folder: Path, move: Callable[[float], np.ndarray]
) -> None:
    reference = save(tmp_path / "reference.nii", labels(1, 3), move(0.098))
    assert convert_volume(row(image, reference), FRAMES, BONES, folder)["status"] == "ok"


@pytest.mark.parametrize("move", [shifted, stretched])
def test_a_reference_just_beyond_the_tolerance(
    tmp_path: Path, image: str, folder: Path, move: Callable[[float], np.ndarray]
) -> None:
    reference = save(tmp_path / "reference.nii", labels(1, 3), move(0.102))
    message = failure(folder, image, reference)
    assert "corners differ by up to 0.102 mm" in message
    assert "at most 0.1 mm" in message


def test_a_reference_that_is_stored_the_other_way_round(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii", *stored_as("LAS", labels(1, 3), affine_of()))
    message = failure(folder, image, reference)
    assert "axes RAS" in message
    assert "axes LAS" in message


@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (0.4, "0.4"), (-1, "-1"), (70000, "70000")])
def test_labels_that_are_no_label_numbers(tmp_path: Path, image: str, folder: Path, value: float, shown: str) -> None:
    voxels = labels(1, 3).astype(np.float32)
    voxels[1, 2, 3] = value
    reference = save(tmp_path / "reference.nii", voxels)
    message = failure(folder, image, reference)
    assert message.startswith(f"{reference}: holds the ")
    assert f" {shown};" in message


def test_whole_labels_stored_as_floats(tmp_path: Path, image: str, folder: Path) -> None:
    reference = save(tmp_path / "reference.nii", labels(1, 3).astype(np.float64))
    convert_volume(row(image, reference), FRAMES, BONES, folder)
    stored = read_reference(folder, "knee")
    assert stored is not None
    assert sorted(stored[stored > 0].tolist()) == [1, 3]


@pytest.mark.parametrize("held", [(), (2, 4)])
def test_a_reference_without_any_configured_label(
    tmp_path: Path, image: str, folder: Path, held: tuple[int, ...]
) -> None:
    reference = save(tmp_path / "reference.nii", labels(*held))
    message = failure(folder, image, reference)
    assert message.startswith(f"{reference}: holds the labels {list(held)}, none of the configured [1, 3]")


# Shards


def test_a_source_that_is_written_to_while_it_is_read(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames may be those of either file: the volume fails, and the next plan converts it again."""
    converted = convert.convert_volume

    def exchanged_meanwhile(*arguments: Any) -> dict[str, Any]:
        made = converted(*arguments)
        Path(image).write_bytes(Path(image).read_bytes())
        return made

    monkeypatch.setattr(convert, "convert_volume", exchanged_meanwhile)
    convert_shard([row(image)], FRAMES, BONES, tmp_path / "000")
    (found,) = read_volume_table(tmp_path / "000").itertuples()
    assert found.status == "failed"
    assert "was written to while it was read" in found.reason
    identity = read_identity(tmp_path / "000")
    assert identity is not None
    assert set(identity.made_from.values()) == {""}


def test_a_volume_that_fails_leaves_the_others_alone(tmp_path: Path, image: str) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_text("not an image")
    reference = save(tmp_path / "reference.nii.gz", labels(1, 2))
    folder = tmp_path / "volumes" / "004"
    rows = [
        row(image, reference, "a"),
        row(broken, volume="b"),
        row(image, volume="c"),
    ]
    convert_shard(rows, FRAMES, BONES, folder)
    table = read_volume_table(folder).set_index("volume")
    assert table["status"].to_dict() == {"a": "ok", "b": "failed", "c": "ok"}
    assert table.loc["b", "reason"].startswith(f"{broken}: cannot be read as an image")
    assert table["source"].to_dict() == {"a": image, "b": str(broken), "c": image}
    assert len(table.loc["a", "warnings"]) == 2
    assert {path.name for path in folder.iterdir()} == {
        "volumes.parquet",
        "identity.json",
        "a_frames.nii",
        "a_reference.nii.gz",
        "c_frames.nii",
    }


def test_an_unforeseen_error_is_that_volumes_alone(tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(row: dict[str, str], *given: Any) -> dict[str, Any]:
        if row["volume"] == "b":
            raise KeyError("PatientName")
        return convert_volume(row, *given)

    monkeypatch.setattr("volprompt.volumes.convert.convert_volume", convert)
    convert_shard([row(image, volume=name) for name in "abc"], FRAMES, BONES, tmp_path / "out")
    table = read_volume_table(tmp_path / "out").set_index("volume")
    assert table["status"].to_dict() == {"a": "ok", "b": "failed", "c": "ok"}
    assert table.loc["b", "reason"] == f"{image}: KeyError: 'PatientName'"


def test_labels_that_are_left_out_are_counted_over_the_shard(
    tmp_path: Path, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "volprompt")
    first, second = (
        save(tmp_path / f"{name}.nii", labels(*given)) for name, given in [("a", (1, 2)), ("b", (1, 2, 7))]
    )
    rows = [row(image, first, volume="a"), row(image, second, volume="b"), row(image, volume="c")]
    convert_shard(rows, FRAMES, BONES, tmp_path / "out")
    assert caplog.messages[-1] == f"{LEFT_OUT}2 (2 volumes), 7 (1 volume)"
    assert labels_left_out(caplog.messages) == {2: 2, 7: 1}
    convert_shard(rows, FRAMES, {**BONES, "others": [2, 7]}, tmp_path / "all")
    assert not labels_left_out(caplog.messages[-1:])


def test_a_full_disk_ends_the_conversion(tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("volprompt.volumes.convert.save_nifti", save)
    with pytest.raises(OSError, match="No space left"):
        convert_shard([row(image)], FRAMES, BONES, tmp_path / "out")


def test_columns_of_the_volume_table(tmp_path: Path, image: str) -> None:
    convert_shard([row(image)], FRAMES, BONES, tmp_path / "ok")
    convert_shard([row(tmp_path / "none.nii")], FRAMES, BONES, tmp_path / "failed")
    ok, failed = read_volume_table(tmp_path / "ok"), read_volume_table(tmp_path / "failed")
    promised = {"volume", "status", "source", "sha256", "shape", "spacing", "orientation", "warnings"}
    assert promised | {"window_low", "window_high", "reason"} <= set(ok.columns)
    assert list(ok.columns) == list(failed.columns)
    both = pd.concat([ok, failed])
    assert both["status"].tolist() == ["ok", "failed"]
    assert ok.loc[0, "shape"].tolist() == [2, 16, 8]
    assert (ok.loc[0, "window_low"], ok.loc[0, "window_high"]) == (0, 255)


# A process of its own, started by a small one: a process that is started inherits the peak of the one that starts it.
MEASURE = """
import resource, sys
import numpy as np
from pathlib import Path
from volprompt.volumes.convert import convert_shard
row = {"volume": "knee", "image": sys.argv[1], "reference": sys.argv[2]}
frames = {"axis": "sagittal", "intensity_percentiles": [0.5, 99.5], "coding": "lossless"}
convert_shard([row], frames, {"femur": [1]}, Path(sys.argv[3]))
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""
START = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', *sys.argv[1:]]))"


def test_what_is_told_of_sources_names_them_as_the_sheet_does(tmp_path: Path, image: str, folder: Path) -> None:
    """A job that gets them from storage has them elsewhere, and nowhere once it is done."""
    reference = save(tmp_path / "reference.nii.gz", labels(1, 2))
    places = {"knees/a.nii.gz": image, "knees/a_labels.nii.gz": str(reference), "knees/b.nii.gz": str(tmp_path / "no")}
    rows = [row("knees/a.nii.gz", "knees/a_labels.nii.gz"), {**row("knees/b.nii.gz"), "volume": "other"}]
    convert_shard(rows, FRAMES, BONES, folder, places=places)
    good, bad = read_volume_table(folder).itertuples()
    assert next(iter(good.warnings)) == "knees/a_labels.nii.gz: label(s) 2 belong to no structure and are left out"
    assert bad.reason.startswith("knees/b.nii.gz: ")
    assert str(tmp_path) not in "".join([*good.warnings, bad.reason])


def test_a_knee_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    shape, affine = (160, 384, 384), np.diag([0.7, 0.365, 0.365, 1.0])
    ramp = np.broadcast_to(np.arange(384, dtype=np.int16), shape)
    image, reference = tmp_path / "image.nii", tmp_path / "reference.nii"
    nib.save(nib.Nifti1Image(ramp, affine), image)
    nib.save(nib.Nifti1Image((ramp > 200).astype(np.uint8), affine), reference)
    command = [sys.executable, "-c", START, MEASURE, str(image), str(reference), str(tmp_path / "000")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read_volume_table(tmp_path / "000").loc[0, "status"] == "ok"
    assert read_frames(tmp_path / "000", "knee").shape == shape
    assert int(done.stdout) < 1e9


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.EIO, "Input/output error"),
        MemoryError(),
        RuntimeError("Failed to allocate memory for image"),
        EOFError("the file ends early"),
    ],
    ids=repr,
)
def test_a_fault_of_the_machine_fails_the_job_and_not_the_volume(
    image: str, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The next attempt may read what this one could not; a volume that is recorded as failed would stay out."""

    def reading(*_: Any) -> None:
        try:
            raise fault
        except Exception as error:
            raise damaged(image, error) from None

    monkeypatch.setattr(convert, "read_voxels", reading)
    if isinstance(fault, EOFError):
        convert_shard([row(image)], FRAMES, BONES, folder)
        assert read_volume_table(folder)["status"].tolist() == ["failed"]
    else:
        with pytest.raises(VolumeError):
            convert_shard([row(image)], FRAMES, BONES, folder)
        assert not (folder / "volumes.parquet").exists()


def test_one_image_under_two_names_is_told(image: str, folder: Path) -> None:
    convert_shard([row(image, volume=name) for name in ("a", "b", "c")], FRAMES, BONES, folder)
    volumes = read_volume_table(folder)
    assert [(volume, text.partition(",")[0]) for volume, text in same_images(volumes, {})] == [
        ("b", "has the same image as a"),
        ("c", "has the same image as a"),
    ]
    assert [volume for volume, _ in same_images(volumes, {"a": "one", "b": "one", "c": "two"})] == ["c"]
    assert same_images(volumes.assign(sha256=["1", "2", "3"]), {}) == []
    assert same_images(volumes.assign(status="failed"), {}) == []
