"""DICOM series: order, choice, damage, archives, and no patient in any output."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from tests.unit.image_files import (
    SERIES,
    change,
    compress_rle,
    oblique,
    pack,
    write_dicom,
    write_enhanced,
    write_segmentation,
)

from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_frames
from volprompt.volumes.images import archives
from volprompt.volumes.images.archives import members_of
from volprompt.volumes.images.image import VolumeError
from volprompt.volumes.images.opening import open_image, read_voxels
from volprompt.volumes.images.sources import sha256_of_source
from volprompt.volumes.references import read_labels

SHAPE, SPACING = (5, 4, 6), (2.0, 1.0, 3.0)
FRAMES = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
AFFINE = oblique(SPACING)


def voxels() -> np.ndarray:
    """Every value once, in no order."""
    return np.random.default_rng(2).permutation(120).reshape(SHAPE).astype(np.int16) - 20


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_dicom(tmp_path / "series", voxels(), AFFINE)
    return tmp_path / "series"


def read(path: Path | str, choice: str = "") -> tuple[np.ndarray, np.ndarray]:
    with open_image(str(path), choice) as image:
        return read_voxels(image), image.affine


def fault(path: Path | str, choice: str = "") -> str:
    with pytest.raises(VolumeError) as caught:
        read(path, choice)
    assert "Doe" not in str(caught.value)
    assert "Jane" not in str(caught.value)
    return str(caught.value)


def in_world(array: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    """Each voxel's value by its place in the world."""
    indices = np.argwhere(np.ones(array.shape, bool))
    places = np.round(nib.affines.apply_affine(affine, indices), 3) + 0.0
    return {tuple(place): float(array[tuple(index)]) for place, index in zip(places, indices, strict=True)}


def test_voxels_lie_where_the_headers_say(series: Path) -> None:
    array, affine = read(series)
    assert array.dtype == np.float32
    assert in_world(array, affine) == in_world(voxels(), AFFINE)


def test_file_names_do_not_matter(series: Path) -> None:
    expected = read(series)
    paths = sorted(series.iterdir())
    names = [f"{number}.bin" for number in range(len(paths))]
    random.Random(4).shuffle(names)
    for path, name in zip(paths, names, strict=True):
        path.rename(series / name)
    found = read(series)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1])


def test_folders_behind_links_are_read_once(series: Path, tmp_path: Path) -> None:
    """Half of the slices lie elsewhere; one link leads to them, one to the same place again, one back up."""
    plain, affine = read(series)
    before = sha256_of_source(series)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    slices = sorted(series.iterdir())
    for path in slices[::2]:
        path.rename(elsewhere / path.name)
    (series / "rest").symlink_to(elsewhere)
    (series / "rest_again").symlink_to(elsewhere)
    (series / "up").symlink_to(tmp_path)
    voxels_behind_links, same = read(series)
    np.testing.assert_array_equal(voxels_behind_links, plain)
    np.testing.assert_array_equal(same, affine)
    assert sha256_of_source(series) == before


def test_deflated_files(series: Path) -> None:
    """Smaller than their pixels, and complete all the same."""
    plain, affine = read(series)
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        header.PixelData = bytes(len(header.PixelData))
        header.save_as(path)
    found, same = read(series)
    assert found.shape == plain.shape
    assert not found.any()
    np.testing.assert_array_equal(same, affine)


def without_preamble(path: Path) -> None:
    """As files were before PS3.10: the data set alone, in the default transfer syntax."""
    header = pydicom.dcmread(path)
    header.file_meta.clear()
    header.preamble = None
    header.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[:2] == b"\x08\x00"


def without_mark(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


@pytest.mark.parametrize("strip", [without_preamble, without_mark])
def test_files_without_the_mark_of_dicom(series: Path, strip: Callable[[Path], None]) -> None:
    expected, affine = read(series)
    for path in series.iterdir():
        strip(path)
    (series / "notes.txt").write_bytes(b"\x08\x00 these are notes" * 20)
    found, same = read(series)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(same, affine)


def test_inverted_grey_values(tmp_path: Path) -> None:
    """MONOCHROME1 shows large values dark; rescaled first, since slices can have slopes of their own."""
    paths = write_dicom(tmp_path / "series", voxels(), AFFINE, PhotometricInterpretation="MONOCHROME1")
    for index, path in enumerate(paths):
        change(path, RescaleSlope=str(1 + index % 2), RescaleIntercept="-7")
    expected = voxels().astype(float)
    expected[:, :, 1::2] *= 2
    with open_image(str(tmp_path / "series")) as image:
        assert in_world(read_voxels(image), image.affine) == in_world(7 - expected, AFFINE)
        assert image.warnings == (
            f"{tmp_path / 'series'}: large values are shown dark (MONOCHROME1); the sign of all values is changed",
        )


def test_hounsfield_units_are_never_inverted(tmp_path: Path) -> None:
    write_dicom(tmp_path / "series", voxels(), AFFINE, PhotometricInterpretation="MONOCHROME1", Modality="CT")
    array, affine = read(tmp_path / "series")
    assert in_world(array, affine) == in_world(voxels(), AFFINE)


def test_files_in_subfolders_and_other_files_beside(series: Path) -> None:
    expected, _ = read(series)
    (series / "inner").mkdir()
    (series / "IM0002").rename(series / "inner" / "IM0002")
    (series / "LICENSE").write_text("no image")
    (series / ".DS_Store").write_bytes(b"\0" * 500)
    np.testing.assert_array_equal(read(series)[0], expected)


def test_rescale_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "series", voxels(), AFFINE)
    expected = voxels().astype(float)
    for index, path in enumerate(paths):
        change(path, RescaleSlope=f"{1 + index / 4}", RescaleIntercept="-7.5")
        expected[:, :, index] = expected[:, :, index] * (1 + index / 4) - 7.5
    array, affine = read(tmp_path / "series")
    assert in_world(array, affine) == in_world(expected, AFFINE)


def compress_jpeg_2000(path: Path) -> None:
    """Replace the pixels by what SimpleITK's writer makes of them."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path.with_suffix(".dcm")))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    image = sitk.ReadImage(str(path))
    writer.Execute(sitk.Cast(image, sitk.sitkInt16))
    written, header = pydicom.dcmread(path.with_suffix(".dcm")), pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    for tag in ("BitsStored", "HighBit", "PixelRepresentation", "PixelData"):
        setattr(header, tag, getattr(written, tag))
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    path.with_suffix(".dcm").unlink()


@pytest.mark.parametrize("compress", [compress_rle, compress_jpeg_2000])
def test_compressed_transfer_syntaxes(tmp_path: Path, compress) -> None:
    # Codecs want slices of some size.
    array = np.random.default_rng(1).integers(0, 900, (48, 40, 3)).astype(np.int16)
    paths = write_dicom(tmp_path / "series", array, AFFINE)
    for path in paths:
        compress(path)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    found, affine = read(tmp_path / "series")
    assert in_world(found, affine) == in_world(array, AFFINE)


# Which slices belong together


def test_a_duplicate_slice(series: Path) -> None:
    (series / "copy").write_bytes((series / "IM0003").read_bytes())
    message = fault(series)
    assert message.startswith(f"{series}: 1 of 7 slices lie where another one lies: ")
    assert "IM0003" in message
    assert "copy" in message


def test_a_missing_slice(series: Path) -> None:
    (series / "IM0003").unlink()
    message = fault(series)
    assert f"{series}: slices are not at equal distances: 6 mm between IM000" in message
    assert {"IM0002", "IM0004"} <= set(message.replace(";", " ").split())
    assert "3 mm between all 5 slices" in message


def test_two_echoes_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    write_dicom(folder, voxels(), AFFINE)
    write_dicom(folder, voxels() + 500, AFFINE, EchoNumbers=2, EchoTime=9.4)
    message = fault(folder)
    assert "holds 2 stacks of slices" in message
    assert "series 4 (UID ...498.1001), echo 1 (4.7 ms), " in message
    assert "series 4 (UID ...498.1001), echo 2 (9.4 ms), " in message
    assert "6 slices of 4 x 5 pixels of 1 x 2 mm, first file IM0006" in message
    array, affine = read(folder, f"{SERIES}@2")
    assert in_world(array, affine) == in_world(voxels() + 500, AFFINE)
    array, affine = read(folder, "4@1")
    assert in_world(array, affine) == in_world(voxels(), AFFINE)
    assert "'4' stands for 2 stacks" in fault(folder, "4")
    assert "holds no series '4@3'" in fault(folder, "4@3")


@pytest.mark.parametrize("choice", ["1.2.3.999111", "999111", "7", "Localizer", "LOCAL*", "localizer"])
def test_a_series_chosen_by_uid_number_or_description(tmp_path: Path, choice: str) -> None:
    folder = tmp_path / "study"
    write_dicom(folder, voxels(), AFFINE)
    other = {"SeriesInstanceUID": "1.2.3.999111", "SeriesNumber": 7, "SeriesDescription": "Localizer"}
    write_dicom(folder, voxels() * 2, AFFINE, **other)
    array, affine = read(folder, choice)
    assert in_world(array, affine) == in_world(voxels() * 2, AFFINE)


def test_echo_times_as_measured(tmp_path: Path) -> None:
    """A time that differs from slice to slice by less than a twentieth is one echo; two such echoes remain two."""
    for index, path in enumerate(write_dicom(tmp_path / "series", voxels(), AFFINE)):
        change(path, EchoTime=4.7 + 0.03 * (index % 3))
    array, affine = read(tmp_path / "series")
    assert in_world(array, affine) == in_world(voxels(), AFFINE)
    for path in write_dicom(tmp_path / "series", voxels(), AFFINE, EchoNumbers=2, EchoTime=4.8):
        assert path.exists()
    assert "holds 2 stacks of slices" in fault(tmp_path / "series")
    array, affine = read(tmp_path / "series", "4@1")
    assert in_world(array, affine) == in_world(voxels(), AFFINE)


@pytest.mark.parametrize("series_of", [lambda index: index, lambda index: index % 2], ids=["each its own", "two"])
def test_series_that_lie_between_each_other(tmp_path: Path, series_of: Callable[[int], int]) -> None:
    folder = tmp_path / "series"
    for index, path in enumerate(write_dicom(folder, voxels(), AFFINE)):
        change(path, SeriesInstanceUID=f"{SERIES}.{series_of(index)}", SeriesNumber=series_of(index))
    with open_image(str(folder)) as image:
        assert in_world(read_voxels(image), image.affine) == in_world(voxels(), AFFINE)
        (warning,) = image.warnings
        assert "series of one description, whose slices lie between each other, are one volume" in warning


def test_series_one_behind_the_other_stay_two(tmp_path: Path) -> None:
    """Two stations of a scan: nothing says that they show the same contrast."""
    for index, path in enumerate(write_dicom(tmp_path / "series", voxels(), AFFINE)):
        change(path, SeriesInstanceUID=f"{SERIES}.{index // 3}")
    assert "holds 2 stacks of slices" in fault(tmp_path / "series")


def test_points_in_time_stay_apart(tmp_path: Path) -> None:
    for time in (1, 2):
        write_dicom(tmp_path / "series", voxels(), AFFINE, SeriesInstanceUID=f"{SERIES}.{time}")
    assert "holds 2 stacks of slices" in fault(tmp_path / "series")


# Enhanced files


def even() -> np.ndarray:
    return 2 * voxels()


def test_an_enhanced_file(tmp_path: Path) -> None:
    """Frames in any order, each with slope and intercept of its own."""
    path = write_enhanced(tmp_path / "enhanced.dcm", even(), AFFINE, order=[3, 0, 5, 1, 4, 2])
    array, affine = read(path)
    assert in_world(array, affine) == in_world(even(), AFFINE)
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / "IM1")
    np.testing.assert_array_equal(read(tmp_path / "folder")[0], array)


def test_a_compressed_enhanced_file(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "enhanced.dcm", even(), AFFINE)
    compress_rle(path)
    array, affine = read(path)
    assert in_world(array, affine) == in_world(even(), AFFINE)


def test_points_in_time_of_an_enhanced_file(tmp_path: Path) -> None:
    twice = np.concatenate([even(), even() + 400], axis=2)
    affine = AFFINE.copy()
    path = write_enhanced(tmp_path / "enhanced.dcm", twice, affine, TemporalPositionIndex=[1] * 6 + [2] * 6)
    header = pydicom.dcmread(path)
    groups = header.PerFrameFunctionalGroupsSequence
    for first, second in zip(groups[:6], groups[6:], strict=True):
        second.PlanePositionSequence = first.PlanePositionSequence
    header.save_as(path)
    message = fault(path)
    assert "holds 2 stacks of slices" in message
    assert "frames of kind 2, " in message
    array, affine = read(path, "4@2")
    assert in_world(array, affine) == in_world(even() + 400, AFFINE)


def test_an_enhanced_file_that_lacks_a_slice(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "enhanced.dcm", even(), AFFINE, order=[0, 1, 3, 4, 5])
    assert "6 mm between enhanced.dcm frame 2 and enhanced.dcm frame 3" in fault(path)


# Segmentations


@pytest.fixture
def organs(series: Path) -> dict[str, np.ndarray]:
    """Two organs on slices 1 to 3 of 6, bool (column, row, slice)."""
    masks = {"first": np.zeros(SHAPE, bool), "second": np.zeros(SHAPE, bool)}
    masks["first"][1:3, 1:3, 1:4] = True
    masks["second"][4, :, 3] = True
    return masks


def segmentation_of(series: Path, path: Path, masks: list[np.ndarray], **settings: Any) -> Path:
    return write_segmentation(path, sorted(series.iterdir()), [mask.transpose(2, 1, 0) for mask in masks], **settings)


def labels_of(reference: Path, image: Path) -> dict[tuple[float, ...], float]:
    with open_image(str(image)) as grid, open_image(str(reference), labels=True) as label_map:
        found, warnings = read_labels(label_map, grid)
        assert warnings == []
        return in_world(found, grid.affine)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("place", ["a file", "beside the slices", "alone in a folder"])
def test_a_segmentation_is_a_label_map(
    series: Path, tmp_path: Path, organs: dict[str, np.ndarray], kind: str, place: str
) -> None:
    """Labels are the numbers of segments; slices without any are not in the file."""
    path = segmentation_of(series, tmp_path / "seg.dcm", list(organs.values()), segmentation_type=kind)
    assert pydicom.dcmread(path).NumberOfFrames < SHAPE[2]
    if place == "beside the slices":
        path.rename(series / "seg.dcm")
        path = series
    elif place == "alone in a folder":
        (tmp_path / "labels").mkdir()
        path = path.rename(tmp_path / "labels" / "seg.dcm").parent
    expected = organs["first"] + 2 * organs["second"].astype(int)
    assert labels_of(path, series) == in_world(expected, AFFINE)
    np.testing.assert_array_equal(read(series)[0].shape, SHAPE)  # the image is still the image


def test_a_segmentation_of_one_slice(series: Path, tmp_path: Path, organs: dict[str, np.ndarray]) -> None:
    path = segmentation_of(series, tmp_path / "seg.dcm", [organs["second"]])
    assert pydicom.dcmread(path).NumberOfFrames == 1
    assert labels_of(path, series) == in_world(organs["second"].astype(int), AFFINE)


def test_a_segmentation_of_another_series(tmp_path: Path, series: Path, organs: dict[str, np.ndarray]) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 0.4 * moved[:3, 2]
    write_dicom(tmp_path / "other", voxels(), moved)
    path = segmentation_of(series, tmp_path / "seg.dcm", list(organs.values()))
    with pytest.raises(VolumeError, match="lies on another grid"):
        labels_of(path, tmp_path / "other")


def test_segments_that_overlap(series: Path, tmp_path: Path, organs: dict[str, np.ndarray]) -> None:
    path = segmentation_of(series, tmp_path / "seg.dcm", [organs["first"], organs["first"]])
    assert "segments of seg.dcm overlap; expected one label per voxel" in fault(path)


def test_fractions_of_segments(series: Path, tmp_path: Path, organs: dict[str, np.ndarray]) -> None:
    path = segmentation_of(series, tmp_path / "seg.dcm", [organs["first"]], segmentation_type="FRACTIONAL")
    assert "holds fractions of segments; expected a segmentation of type BINARY or LABELMAP" in fault(path)


def test_orientations_and_sizes_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_dicom(folder, voxels(), np.diag([*SPACING, 1.0]))
    write_dicom(folder, voxels(), np.diag([*SPACING, 1.0])[[2, 0, 1, 3]])
    write_dicom(folder, voxels()[:-1], np.diag([*SPACING, 1.0]))
    message = fault(folder)
    assert "holds 3 stacks of slices" in message
    assert message.count("axial") == 2
    assert message.count("sagittal") + message.count("coronal") == 1
    assert "of 4 x 4 pixels" in message


def test_directions_with_few_digits_are_one_orientation(series: Path) -> None:
    header = pydicom.dcmread(series / "IM0002")
    change(series / "IM0002", ImageOrientationPatient=[f"{value:.3f}" for value in header.ImageOrientationPatient])
    assert read(series)[0].shape == SHAPE


def test_a_tilted_stack(series: Path) -> None:
    for index, path in enumerate(sorted(series.iterdir())):
        header = pydicom.dcmread(path)
        along_rows = np.array(header.ImageOrientationPatient[:3], float)
        change(path, ImagePositionPatient=list(np.round(header.ImagePositionPatient + 0.5 * index * along_rows, 6)))
    assert "shifted against each other in their plane by up to 2.5 mm" in fault(series)


# Archives


@pytest.mark.parametrize("name", ["s.zip", "s.tar.gz", "s.tgz"])
def test_archives_are_read_like_folders_and_cleaned_up(
    tmp_path: Path, series: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    found, expected = read(pack(series, tmp_path / name)), read(series)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_names_in_an_archive_are_no_paths(tmp_path: Path, series: Path) -> None:
    content = (series / "IM0000").read_bytes()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        for name in ("../../outside", "/etc/outside", "inner/same", "same"):
            packed.writestr(name, content)
    with tarfile.open(tmp_path / "evil.tar", "w") as packed:
        for name in ("../../outside", "/etc/outside"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    for name, count in (("evil.zip", 4), ("evil.tar", 2)):
        with members_of(str(tmp_path / name)) as members:
            assert len(members) == count
            (folder,) = {member.path.parent for member in members}
            assert all(member.path.read_bytes() == content for member in members)
            assert sorted(path.name for path in folder.iterdir()) == [f"{n + 1:06d}.dcm" for n in range(count)]
        assert not folder.exists()
    assert not (tmp_path.parent / "outside").exists()


def test_an_archive_is_unpacked_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(5_000_000))
    monkeypatch.setattr(archives, "MAX_BYTES", 4_000_000)
    assert "unpacks to more than" in fault(tmp_path / "bomb.zip")
    monkeypatch.setattr(archives, "MAX_FILES", 0)
    assert "holds more than 0 files" in fault(tmp_path / "bomb.zip")


# No patient data


def test_no_header_text_in_any_output(
    tmp_path: Path, series: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    write_dicom(tmp_path / "mixed", voxels(), AFFINE)
    write_dicom(tmp_path / "mixed", voxels(), AFFINE, EchoNumbers=2)
    change(series / "IM0001", ImageComments="Jane Doe, Q4711", AccessionNumber="Q4711")
    rows = [{"volume": name, "image": str(tmp_path / name), "reference": ""} for name in ("series", "mixed")]
    with caplog.at_level("DEBUG"):
        convert_shard(rows, FRAMES, {"femur": [1]}, tmp_path / "000")
    assert "mixed: FAILED" in caplog.text
    table = pd.read_parquet(tmp_path / "000" / "volumes.parquet")
    assert table["status"].tolist() == ["ok", "failed"]
    written = [path.read_bytes() for path in (tmp_path / "000").iterdir()]
    said = caplog.text + "".join(str(warning.message) for warning in recwarn)
    for content in [*written, table.to_csv().encode(), said.encode()]:
        for secret in (b"Doe", b"Jane", b"Q4711", b"19500101", b"Sag DESS"):
            assert secret not in content


# The real series


@pytest.mark.real
def test_a_real_dess_series(shared_data: Path, tmp_path: Path) -> None:
    """80 sagittal slices of 512 x 512 pixels, against SimpleITK's own reader of series."""
    folder = shared_data / "dess_dicom"
    array, affine = read(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = reader.Execute()
    assert array.shape == expected.GetSize() == (512, 512, 80)
    np.testing.assert_array_equal(array, sitk.GetArrayViewFromImage(expected).T)
    for corner in ((0, 0, 0), (511, 0, 79), (10, 500, 40)):
        left, posterior, superior = expected.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((affine @ [*corner, 1])[:3], [-left, -posterior, superior], atol=1e-3)
    row = {"volume": "knee", "image": pack(folder, tmp_path / "knee.tar.gz"), "reference": ""}
    convert_shard([row], {**FRAMES, "intensity_percentiles": [0.5, 99.5]}, {"femur": [1]}, tmp_path / "000")
    (found,) = pd.read_parquet(tmp_path / "000" / "volumes.parquet").itertuples()
    assert found.status == "ok", found.reason
    assert found.spacing.tolist() == pytest.approx([1.5, 0.3125, 0.3125], abs=1e-4)
    frames = read_frames(tmp_path / "000", "knee")
    assert frames.shape == (80, 512, 512)
    # The slice with index 40 from the left: a stored row is a row of the frame, as sagittal DICOM is shown.
    raw = np.clip(array[:, :, 40].T, found.window_low, found.window_high) - found.window_low
    np.testing.assert_array_equal(frames[40], np.rint(raw * (255 / (found.window_high - found.window_low))))
