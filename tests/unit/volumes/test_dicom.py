"""DICOM series: order, choice, damage, archives, and no patient in any output."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from tests.unit.image_files import SERIES, change, compress_rle, oblique, pack, write_dicom

from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_frames
from volprompt.volumes.images import archives
from volprompt.volumes.images.archives import members_of
from volprompt.volumes.images.image import VolumeError
from volprompt.volumes.images.opening import open_image, read_voxels
from volprompt.volumes.images.sources import sha256_of_source

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
    change(series / "IM0001", ImageComments="Jane Doe, 4711", AccessionNumber="4711")
    rows = [{"volume": name, "image": str(tmp_path / name), "reference": ""} for name in ("series", "mixed")]
    with caplog.at_level("DEBUG"):
        convert_shard(rows, FRAMES, {"femur": [1]}, tmp_path / "000")
    assert "mixed: FAILED" in caplog.text
    table = pd.read_parquet(tmp_path / "000" / "volumes.parquet")
    assert table["status"].tolist() == ["ok", "failed"]
    written = [path.read_bytes() for path in (tmp_path / "000").iterdir()]
    said = caplog.text + "".join(str(warning.message) for warning in recwarn)
    for content in [*written, table.to_csv().encode(), said.encode()]:
        for secret in (b"Doe", b"Jane", b"4711", b"19500101", b"Sag DESS"):
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
