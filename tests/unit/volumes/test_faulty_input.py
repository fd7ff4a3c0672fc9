"""Every kind of faulty input has one clear message, which stands in docs/faults.md."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RTStructureSetStorage, SegmentationStorage
from tests.unit.image_files import change, compress_rle, pack, write_dicom, write_itk, write_mgh, write_nifti

from volprompt.study.check import Fault, InvalidVolumes, check_volumes, report_faults
from volprompt.volumes.convert import convert_volume
from volprompt.volumes.images import archives
from volprompt.volumes.images.image import VolumeError

REPOSITORY = Path(__file__).resolve().parents[3]
FRAMES = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
BONES = {"femur": [1], "tibia": [3]}
SHAPE, AFFINE = (6, 8, 10), np.diag([2.0, 1.0, 1.5, 1.0])


@dataclass
class Input:
    """A row of the sample sheet, and the file that is at fault."""

    image: Path
    reference: Path | None = None
    series: str = ""

    @property
    def row(self) -> dict[str, str]:
        reference = "" if self.reference is None else str(self.reference)
        return {
            "volume": "knee",
            "image": str(self.image),
            "reference": reference,
            "series": self.series,
        }

    @property
    def faulty(self) -> str:
        return str(self.reference or self.image)


def grey() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.int16)


def nifti(folder: Path, array: np.ndarray | None = None, name: str = "image.nii") -> Path:
    return Path(write_nifti(folder / name, grey() if array is None else array, AFFINE))


def cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def series(folder: Path, **tags: object) -> Path:
    write_dicom(folder / "series", grey(), AFFINE, **tags)
    return folder / "series"


def one_changed(folder: Path, **tags: object) -> Path:
    made = series(folder)
    change(made / "IM0004", **tags)
    return made


def with_reference(folder: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Input:
    return Input(nifti(folder), Path(write_nifti(folder / "reference.nii", labels, affine)))


def labels(value: float = 1.0) -> np.ndarray:
    made = np.zeros(SHAPE, np.float32)
    made[2:4, 2:4, 2:4] = value
    return made


# Files


def missing(folder: Path) -> Input:
    return Input(folder / "none.nii.gz")


def text_as_nifti(folder: Path) -> Input:
    return Input(written(folder / "image.nii.gz", b"this is no image" * 50))


def other_format(folder: Path) -> Input:
    return Input(nifti(folder).rename(folder / "image.nii.bz2"))


def text_as_nrrd(folder: Path) -> Input:
    return Input(written(folder / "image.nrrd", b"this is no image" * 50))


def text_as_metaimage(folder: Path) -> Input:
    return Input(written(folder / "image.mha", b"this is no image" * 50))


def brain_surface(folder: Path) -> Input:
    """CIFTI: numbers along brain models, in a file that ends like NIfTI's."""
    axes = nib.cifti2.ScalarAxis(["thickness"]), nib.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2)), affine=AFFINE)
    nib.save(nib.Cifti2Image(np.zeros((1, 8), np.float32), axes), folder / "image.dscalar.nii")
    return Input(folder / "image.dscalar.nii")


def colours(folder: Path) -> Input:
    return Input(nifti(folder, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])))


def layers(folder: Path) -> Input:
    image = sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(folder / "segmentation.seg.nrrd"))
    return Input(nifti(folder), folder / "segmentation.seg.nrrd")


def four_dimensions(folder: Path) -> Input:
    return Input(nifti(folder, np.zeros((4, 4, 4, 3), np.int16)))


def two_dimensions(folder: Path) -> Input:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4), np.int16)), str(folder / "image.mha"))
    return Input(folder / "image.mha")


def cut_nifti(folder: Path) -> Input:
    return Input(cut(nifti(folder), 10))


def cut_mgh(folder: Path) -> Input:
    return Input(cut(Path(write_mgh(folder / "image.mgh", grey(), AFFINE)), 50))


def cut_compressed_mgh(folder: Path) -> Input:
    return Input(cut(Path(write_mgh(folder / "image.mgz", grey(), AFFINE)), 100))


def cut_compressed_nifti(folder: Path) -> Input:
    return Input(cut(nifti(folder, name="image.nii.gz"), 100))


def wrong_checksum(folder: Path) -> Input:
    """A bit of a stored block turned over: the stream unpacks, and only its sum tells."""
    path = folder / "image.nii.gz"
    with gzip.GzipFile(path, "wb", compresslevel=0) as stream:
        stream.write(nifti(folder).read_bytes())
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    return Input(written(path, content))


def broken_stream(folder: Path) -> Input:
    """A stretch in the middle of the compressed voxels written over."""
    path = nifti(folder, np.random.default_rng(5).integers(0, 900, (40, 50, 60)).astype(np.int16), "image.nii.gz")
    content = bytearray(path.read_bytes())
    content[-1200:-1000] = b"\xff" * 200
    return Input(written(path, content))


def cut_raw_data(folder: Path) -> Input:
    path = Path(write_itk(folder / "image.mhd", grey(), AFFINE))
    cut(folder / "image.raw", 10)
    return Input(path)


def cut_pair(folder: Path) -> Input:
    path = nifti(folder, name="image.hdr")
    cut(folder / "image.img", 10)
    return Input(path)


def cut_compressed_pair(folder: Path) -> Input:
    path = nifti(folder, name="image.hdr.gz")
    cut(folder / "image.img.gz", 10)
    return Input(path)


def cut_compressed_metaimage_data(folder: Path) -> Input:
    path = Path(write_itk(folder / "image.mhd", grey(), AFFINE, compress=True))
    cut(folder / "image.zraw", 10)
    return Input(path)


def cut_compressed_nrrd_data(folder: Path) -> Input:
    path = Path(write_itk(folder / "image.nhdr", grey(), AFFINE, compress=True))
    cut(folder / "image.raw.gz", 10)
    return Input(path)


def cut_compressed_nrrd(folder: Path) -> Input:
    return Input(cut(Path(write_itk(folder / "image.nrrd", grey(), AFFINE, compress=True)), 100))


def no_data_file(folder: Path) -> Input:
    path = Path(write_itk(folder / "image.mhd", grey(), AFFINE))
    (folder / "image.raw").unlink()
    return Input(path)


def no_header(folder: Path) -> Input:
    nifti(folder, name="image.hdr").unlink()
    return Input(folder / "image.img")


def no_affine(folder: Path) -> Input:
    content = bytearray(nifti(folder).read_bytes())
    content[280:296] = bytes(16)  # the affine's first row
    return Input(written(folder / "image.nii", content))


def nan(folder: Path) -> Input:
    voxels = grey().astype(np.float32)
    voxels[1, 2, 3] = np.nan
    return Input(nifti(folder, voxels))


def constant(folder: Path) -> Input:
    return Input(nifti(folder, np.full(SHAPE, 42, np.int16)))


# DICOM and archives


def empty_folder(folder: Path) -> Input:
    (folder / "series").mkdir()
    return Input(folder / "series")


def archive_of_nifti(folder: Path) -> Input:
    with zipfile.ZipFile(folder / "image.zip", "w") as packed:
        packed.write(nifti(folder))
    return Input(folder / "image.zip")


def cut_archive(folder: Path) -> Input:
    return Input(cut(Path(pack(series(folder), folder / "series.tar.gz")), 1000))


def text_as_zip(folder: Path) -> Input:
    return Input(written(folder / "series.zip", b"this is no archive" * 50))


def encrypted(folder: Path) -> Input:
    content = bytearray(Path(pack(series(folder), folder / "series.zip")).read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the first entry of the directory
    return Input(written(folder / "series.zip", content))


def large_archive(folder: Path) -> Input:
    return Input(Path(pack(series(folder), folder / "series.zip")))


def single_dicom(folder: Path) -> Input:
    return Input(series(folder) / "IM0000")


def two_echoes(folder: Path) -> Input:
    write_dicom(series(folder), grey(), AFFINE, EchoNumbers=2)
    return Input(folder / "series")


def two_echoes_of_the_chosen(folder: Path) -> Input:
    return Input(two_echoes(folder).image, series="4")


def unknown_series(folder: Path) -> Input:
    return Input(series(folder), series="T2 map")


def series_of_a_file(folder: Path) -> Input:
    return Input(nifti(folder), series="4")


def duplicate(folder: Path) -> Input:
    path = series(folder)
    (path / "copy").write_bytes((path / "IM0004").read_bytes())
    return Input(path)


def gap(folder: Path) -> Input:
    path = series(folder)
    (path / "IM0004").unlink()
    return Input(path)


def links_astray(folder: Path) -> Input:
    write_dicom(folder / "series", grey(), AFFINE)
    (folder / "series" / "IM0099").symlink_to(folder / "nowhere")
    return Input(folder / "series")


def data_elsewhere(folder: Path) -> Input:
    (folder / "inner").mkdir()
    header = Path(write_itk(folder / "inner" / "image.nhdr", grey(), AFFINE))
    (folder / "inner" / "image.raw").rename(folder / "image.raw")
    header.write_text(header.read_text().replace("data file: ", "data file: ../"))
    return Input(header)


def data_by_an_absolute_path(folder: Path) -> Input:
    header = Path(write_itk(folder / "image.mhd", grey(), AFFINE))
    header.write_text(header.read_text().replace("image.raw", "/etc/hostname"))
    return Input(header)


def with_bytes(folder: Path, old: bytes, new: bytes) -> Input:
    """A series in whose headers some bytes are others."""
    for path in write_dicom(folder / "series", grey(), AFFINE):
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
    return Input(folder / "series")


def no_transfer_syntax(folder: Path) -> Input:
    return with_bytes(folder, b"\x02\x00\x10\x00UI", b"\x02\x00\x00\x01UI")


def private_transfer_syntax(folder: Path) -> Input:
    return with_bytes(folder, b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.0\0")


def no_voxels(folder: Path) -> Input:
    path = nifti(folder)
    content = bytearray(path.read_bytes())
    content[42:44] = (0).to_bytes(2, "little")  # dim[1]
    path.write_bytes(bytes(content))
    return Input(path)


def more_than_gzip_can_hold(folder: Path) -> Input:
    """The size at the end of a gzip file counts modulo 2**32."""
    path = nifti(folder)
    content = bytearray(path.read_bytes())
    content[42:48] = b"".join(length.to_bytes(2, "little") for length in (2048, 1024, 1024))
    packed = bytearray(gzip.compress(bytes(content)))
    packed[-4:] = ((352 + 2048 * 1024 * 1024 * 2) % 2**32).to_bytes(4, "little")
    (folder / "image.nii.gz").write_bytes(bytes(packed))
    return Input(folder / "image.nii.gz")


def sheared(folder: Path) -> Input:
    affine = AFFINE.copy()
    affine[1, 0] = 0.8
    return Input(Path(write_nifti(folder / "image.nii", grey(), affine)))


def unoriented(folder: Path) -> Input:
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), None), folder / "labels.nii")
    return Input(nifti(folder), folder / "labels.nii")


def tilted(folder: Path) -> Input:
    path = series(folder)
    for index, each in enumerate(sorted(path.iterdir())):
        change(each, ImagePositionPatient=[0.4 * index, 0, 1.5 * index])
    return Input(path)


def one_slice(folder: Path) -> Input:
    path = series(folder)
    for each in sorted(path.iterdir())[1:]:
        each.unlink()
    return Input(path)


def multi_frame(folder: Path) -> Input:
    path = one_slice(folder).image
    change(path / "IM0000", NumberOfFrames=10, PixelData=bytes(10 * 6 * 8 * 2))
    return Input(path)


def colour_dicom(folder: Path) -> Input:
    return Input(series(folder, PhotometricInterpretation="PALETTE COLOR"))


def contours(folder: Path) -> Input:
    path = one_slice(folder).image
    change(path / "IM0000", SOPClassUID=RTStructureSetStorage)
    return Input(path)


def several_segmentations(folder: Path) -> Input:
    path = series(folder)
    for name in ("IM0000", "IM0001"):
        change(path / name, SOPClassUID=SegmentationStorage)
    for file in sorted(path.iterdir())[2:]:
        file.unlink()
    return Input(path)


def broken_segmentation(folder: Path) -> Input:
    path = one_slice(folder).image
    change(path / "IM0000", SOPClassUID=SegmentationStorage)
    return Input(path)


def no_position(folder: Path) -> Input:
    return Input(one_changed(folder, ImagePositionPatient=None))


def no_pixel_spacing(folder: Path) -> Input:
    return Input(series(folder, PixelSpacing=[0, 1]))


def cut_slice(folder: Path) -> Input:
    path = series(folder)
    cut(path / "IM0003", 40)
    (path / "IM0003").write_bytes((path / "IM0003").read_bytes()[-40:].rjust(132, b"\0")[:128] + b"DICM")
    return Input(path)


def few_pixels(folder: Path) -> Input:
    path = series(folder)
    content = (path / "IM0003").read_bytes()
    (path / "IM0003").write_bytes(content[: -6 * 8 * 2] + content[-20:])
    for each in path.iterdir():
        change(each, Rows=300, Columns=300)
    return Input(path)


def broken_codec(folder: Path) -> Input:
    path = series(folder)
    for each in path.iterdir():
        compress_rle(each)
    content = bytearray((path / "IM0003").read_bytes())
    start = content.rindex(b"\xfe\xff\x00\xe0") + 8  # the last fragment: RLE's header, then its segments
    content[start : start + 60] = b"\xff" * 60
    written(path / "IM0003", content)
    return Input(path)


# References


def other_grid(folder: Path) -> Input:
    return with_reference(folder, labels()[:, :, :-1])


def fractions(folder: Path) -> Input:
    return with_reference(folder, labels(0.5))


def negative(folder: Path) -> Input:
    return with_reference(folder, labels(-1))


def large_label(folder: Path) -> Input:
    return with_reference(folder, labels(70000))


def other_labels(folder: Path) -> Input:
    return with_reference(folder, labels(7))


def reference_in_time(folder: Path) -> Input:
    return with_reference(folder, np.zeros((*SHAPE, 2), np.uint8))


def more_voxels_than_masks_can_have(folder: Path) -> Input:
    path = folder / "image.mha"
    write_itk(path, grey(), AFFINE)
    return Input(replaced(path, b"DimSize = 6 8 10", b"DimSize = 40000 1 2"))


def tiny_voxels(folder: Path) -> Input:
    return Input(write_nifti(folder / "image.nii", grey(), np.diag([1e-6, 1e-6, 1e-6, 1])))


def huge_voxels(folder: Path) -> Input:
    return Input(write_nifti(folder / "image.nii", grey(), np.diag([3e38, 1, 1, 1])))


def voxels_in_kilometres(folder: Path) -> Input:
    return Input(write_itk(folder / "image.nrrd", grey(), np.diag([1, 1e6, 1, 1])))


def pipe(folder: Path) -> Input:
    os.mkfifo(folder / "image.nii")
    return Input(folder / "image.nii")


def data_file_is_a_pipe(folder: Path) -> Input:
    path = folder / "image.mhd"
    write_itk(path, grey(), AFFINE)
    (folder / "image.raw").unlink()
    os.mkfifo(folder / "image.raw")
    return Input(path)


def bzip2_nrrd(folder: Path) -> Input:
    path = folder / "image.nrrd"
    write_itk(path, grey(), AFFINE)
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(header.replace(b"encoding: raw", b"encoding: bzip2") + b"\n\n" + bz2.compress(voxels))
    return Input(path)


def more_than_a_nrrd_can_hold(folder: Path) -> Input:
    path = folder / "image.nrrd"
    write_itk(path, grey(), AFFINE, compress=True)
    return Input(replaced(path, b"sizes: 6 8 10", b"sizes: 3000 300 300"))


def more_than_a_metaimage_can_hold(folder: Path) -> Input:
    path = folder / "image.mha"
    write_itk(path, grey(), AFFINE, compress=True)
    return Input(replaced(path, b"DimSize = 6 8 10", b"DimSize = 3000 300 300"))


def more_than_deflated_can_hold(folder: Path) -> Input:
    path = series(folder)
    for file in path.iterdir():
        change(file, Rows=30000, Columns=30000)
        header = pydicom.dcmread(file)
        header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        header.save_as(file)
    return Input(path)


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content, content[:400]
    path.write_bytes(content.replace(old, new))
    return path


# The message as in docs/faults.md (... stands for anything), what builds the input, and whether headers show it.
KINDS: list[tuple[str, Callable[[Path], Input], bool]] = [
    ("no such file", missing, True),
    ("cannot be read as an image (...); expected NIfTI", text_as_nifti, True),
    ("cannot be read as an image (no format that is read has this ending); expected NIfTI", other_format, True),
    ("cannot be read as an image (not a Nrrd file, or its header is broken)", text_as_nrrd, True),
    ("cannot be read as an image (not a Meta file, or its header is broken)", text_as_metaimage, True),
    ("is no image but ...", brain_surface, True),
    ("holds colours or complex numbers; expected one real number per voxel", colours, True),
    ("holds N numbers per voxel (colours, vectors, or layers of a segmentation)", layers, True),
    ("has N dimensions (...); expected a 3D volume", four_dimensions, True),
    ("has N dimensions (...); expected a 3D volume", two_dimensions, True),
    ("the file is damaged or cut off (N bytes, N expected)", cut_nifti, True),
    ("the file is damaged or cut off (N bytes, N expected)", cut_mgh, True),
    ("the file is damaged or cut off (...)", cut_compressed_mgh, True),
    ("the file is damaged or cut off (...)", cut_compressed_nifti, True),
    ("the file is damaged or cut off (CRC check failed ...)", wrong_checksum, False),
    ("the file is damaged or cut off (...)", broken_stream, False),
    ("the file is damaged or cut off (... has N bytes, N expected)", cut_raw_data, True),
    ("the file is damaged or cut off (... has N bytes, N expected)", cut_pair, True),
    ("the file is damaged or cut off (... has N bytes, N expected)", cut_compressed_metaimage_data, True),
    ("the file is damaged or cut off (...)", cut_compressed_pair, True),
    ("the file is damaged or cut off (...)", cut_compressed_nrrd_data, True),
    ("the file is damaged or cut off (its voxels cannot be read)", cut_compressed_nrrd, False),
    ("its data file ... is missing", no_data_file, True),
    ("its header ... is missing", no_header, True),
    ("names the data file ..., outside of its folder", data_elsewhere, True),
    ("names the data file ..., outside of its folder", data_by_an_absolute_path, True),
    ("the affine does not span a volume", no_affine, True),
    ("its stored axes ... are at an angle of ... degrees (a tilted gantry)", sheared, True),
    ("N voxels are NaN or infinite, the first at (...)", nan, False),
    ("no contrast is left", constant, False),
    ("holds N links that lead nowhere", links_astray, True),
    ("the folder holds N files and no DICOM image", empty_folder, True),
    ("the archive holds N files and no DICOM image", archive_of_nifti, True),
    ("the file is damaged or cut off (...)", cut_archive, True),
    ("the file is damaged or cut off (File is not a zip file)", text_as_zip, True),
    ("the archive is encrypted", encrypted, True),
    ("the archive unpacks to more than ... GiB", large_archive, True),
    ("is a single DICOM file", single_dicom, True),
    ("holds N stacks of slices (series, echoes, orientations or sizes)", two_echoes, True),
    ("'...' stands for N stacks of slices", two_echoes_of_the_chosen, True),
    ("holds no series '...', but", unknown_series, True),
    ("the series '...' is chosen from a single file", series_of_a_file, True),
    ("N of N slices lie where another one lies", duplicate, True),
    ("slices are not at equal distances", gap, True),
    ("slices are shifted against each other in their plane by up to N mm", tilted, True),
    ("the series has a single slice", one_slice, True),
    ("is a multi-frame DICOM image (N frames) without positions", multi_frame, True),
    ("holds colours; expected grey values", colour_dicom, True),
    ("holds contours (RTSTRUCT)", contours, True),
    ("holds N segmentations", several_segmentations, True),
    ("the file is damaged or cut off (header of ...)", broken_segmentation, True),
    ("has no valid ImagePositionPatient", no_position, True),
    ("has no valid PixelSpacing", no_pixel_spacing, True),
    ("says nothing of how its pixels are written (TransferSyntaxUID)", no_transfer_syntax, True),
    ("says nothing of how its pixels are written (TransferSyntaxUID)", private_transfer_syntax, True),
    ("has ... voxels; expected 1 to N along each axis", no_voxels, True),
    ("has ... voxels; expected 1 to N along each axis", more_voxels_than_masks_can_have, True),
    ("has voxels of ... mm", tiny_voxels, True),
    ("has voxels of ... mm", huge_voxels, True),
    ("has voxels of ... mm", voxels_in_kilometres, True),
    ("is a pipe, a socket or a device", pipe, True),
    ("its data file ... is missing", data_file_is_a_pipe, True),
    ("its voxels are written with the encoding '...'", bzip2_nrrd, True),
    ("the file is damaged or cut off (at most ... bytes unpacked, N expected)", more_than_a_nrrd_can_hold, True),
    ("the file is damaged or cut off (at most ... bytes unpacked, N expected)", more_than_a_metaimage_can_hold, True),
    ("the file is damaged or cut off (... has less than the N bytes of its pixels)", more_than_deflated_can_hold, True),
    ("the file is damaged or cut off (at most ... bytes unpacked, N expected)", more_than_gzip_can_hold, True),
    ("the file is damaged or cut off (header of ...)", cut_slice, True),
    ("the file is damaged or cut off (... has less than the N bytes of its pixels)", few_pixels, True),
    ("the file is damaged or cut off (the pixels of ... cannot be decoded)", broken_codec, False),
    ("cannot be compared with ..., since the header of ... says nothing about orientation", unoriented, True),
    ("lies on another grid than ...", other_grid, True),
    ("holds the value ...; expected label numbers, whole and not negative", fractions, False),
    ("holds the value ...; expected label numbers, whole and not negative", negative, False),
    ("holds the label ...; expected at most 65535", large_label, False),
    ("holds the labels [...], none of the configured [...]", other_labels, False),
    ("has N dimensions (...); expected a 3D volume", reference_in_time, True),
]


def pattern(message: str) -> str:
    """`...` stands for anything, N for a number."""
    return re.sub(r"\bN\b", r"[0-9.]+", re.escape(message).replace(r"\.\.\.", ".+?"))


@pytest.fixture(autouse=True)
def small_limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "large_archive" in request.node.name:
        monkeypatch.setattr(archives, "MAX_BYTES", 1000)


@pytest.mark.parametrize(("message", "build", "early"), KINDS, ids=[build.__name__ for _, build, _ in KINDS])
def test_faulty_input_has_one_clear_message(
    tmp_path: Path, message: str, build: Callable[[Path], Input], early: bool
) -> None:
    made = build(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(VolumeError) as caught:
        convert_volume(made.row, FRAMES, BONES, tmp_path / "out")
    text = str(caught.value)
    assert text.startswith(f"{made.faulty}: ")
    assert re.search(pattern(message), text, re.DOTALL), text
    assert caught.value.expected or caught.value.remedy
    assert list((tmp_path / "out").iterdir()) == []
    # The check finds the same, where headers and sizes show it, and nothing where they do not.
    found = check_volumes([made.row], "sagittal", None, tmp_path / "faults.tsv")
    error = caught.value
    expected = [Fault("knee", error.file, error.finding, error.expected, error.remedy)] if early else []
    assert found == expected
    assert len(pd.read_csv(tmp_path / "faults.tsv", sep="\t")) == len(expected)


@pytest.mark.parametrize("message", sorted({message for message, _, _ in KINDS}))
def test_the_message_stands_in_the_docs(message: str) -> None:
    assert f"`{message}`" in (REPOSITORY / "docs" / "faults.md").read_text()


def test_at_least_25_kinds() -> None:
    assert len({message for message, _, _ in KINDS}) >= 25


# The check as a whole


def test_all_faults_of_all_volumes_in_one_table(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    both = Input(cut_nifti(tmp_path / "a").image, written(tmp_path / "a" / "reference.nrrd", b"no labels"))
    rows = [{**made.row, "volume": name} for name, made in (("a", both), ("b", gap(tmp_path / "b")))]
    rows.append({**Input(nifti(tmp_path / "c")).row, "volume": "c"})
    faults = check_volumes(rows, "sagittal", None, tmp_path / "check" / "faults.tsv")
    table = pd.read_csv(tmp_path / "check" / "faults.tsv", sep="\t")
    assert table["volume"].tolist() == ["a", "a", "b"]
    assert table["file"].tolist() == [rows[0]["image"], rows[0]["reference"], rows[1]["image"]]
    assert table.loc[2, "remedy"] == "Get the missing slices, or choose one series"
    with pytest.raises(InvalidVolumes) as caught:
        report_faults(faults, 3, "stop", "faults.tsv")
    lines = str(caught.value).splitlines()
    assert lines[0] == "The files of the sample sheet have 3 faults in 2 of 3 volumes (table: faults.tsv):"
    assert [line[:6] for line in lines[1:4]] == ["  - a:", "  - a:", "  - b:"]
    report_faults(faults, 3, "skip", "faults.tsv", whole=True)
    report_faults(faults, 2, "skip", "faults.tsv")
    with pytest.raises(InvalidVolumes, match="No volume is left to go on with"):
        report_faults(faults, 2, "skip", "faults.tsv", whole=True)


def test_no_cell_of_the_table_of_faults_is_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("=1+1.nii").write_bytes(b"nothing")
    check_volumes([{"volume": "a", "image": "=1+1.nii", "reference": ""}], "sagittal", None, "faults.tsv")
    assert pd.read_csv("faults.tsv", sep="\t")["file"].tolist() == ["'=1+1.nii"]


def test_a_reference_on_another_grid_is_no_fault_where_it_is_resampled(tmp_path: Path) -> None:
    row = other_grid(tmp_path).row
    assert len(check_volumes([row], "sagittal", None, tmp_path / "faults.tsv")) == 1
    assert check_volumes([row], "sagittal", "nearest", tmp_path / "faults.tsv") == []


def test_unusual_frames_are_told_with_the_other_planes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = write_nifti(tmp_path / "image.nii", np.zeros((160, 40, 36), np.uint8), np.eye(4))
    row = {"volume": "knee", "image": image, "reference": ""}
    for axis, said in (
        (
            "sagittal",
            f"{image}: 160 frames of 36 x 40 pixels along axis sagittal; frames.axis could be "
            "coronal of 36 x 160, axial of 40 x 160",
        ),
        ("coronal", ""),
    ):
        caplog.clear()
        assert check_volumes([row], axis, None, tmp_path / "faults.tsv") == []
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == ([f"1 of 1 volumes have unusual frames, the first: {said}"] if said else [])


def test_what_a_reader_stumbles_over_is_the_fault_of_its_volume(tmp_path: Path) -> None:
    """Sides that no NIfTI header can hold, beside a volume without fault."""
    good, huge = Input(nifti(tmp_path)), tmp_path / "huge.mha"
    header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 100000 100000 100000\n"
    huge.write_text(header + "ElementSpacing = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n")
    rows = [good.row, {**Input(huge).row, "volume": "huge"}]
    (fault,) = check_volumes(rows, "sagittal", None, tmp_path / "faults.tsv")
    assert (fault.volume, fault.file) == ("huge", str(huge))
    assert fault.finding == "has 100000 x 100000 x 100000 voxels"
