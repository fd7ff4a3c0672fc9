"""Whatever format and axis order a volume is stored in, its frames, reference and masks are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from tests.unit.image_files import (
    oblique,
    pack,
    stored_as,
    write_analyze,
    write_dicom,
    write_itk,
    write_mgh,
    write_nifti,
)

from volprompt.phantom.image import make_phantom
from volprompt.remembered import DigestMemory
from volprompt.segmentation.masks import read_mask, write_mask
from volprompt.settings.reading import read_settings
from volprompt.study.sheets import SheetRow
from volprompt.study.study import Study
from volprompt.volumes.convert import convert_shard, convert_volume
from volprompt.volumes.converted import grid_of_row, read_frames, read_volume_table
from volprompt.volumes.converted import read_reference as stored_reference
from volprompt.volumes.grid import grid_of
from volprompt.volumes.images.formats import FORMATS, Format, data_files, ending_of, format_of
from volprompt.volumes.images.image import VolumeError
from volprompt.volumes.images.opening import open_image, read_voxels
from volprompt.volumes.images.sources import parts_of, sha256_of_source
from volprompt.volumes.references import is_notice

FRAMES = {"axis": "sagittal", "intensity_percentiles": [0.5, 99.5], "coding": "lossless"}
BONES = {"femur": [1], "tibia": [3]}
SPACING = (9.0, 2.9, 2.5)
SETTINGS = read_settings(
    {
        "structures": {"femur": {"labels": [1]}},
        "schemes": {"box": {"predictor": "image", "box": True}},
        "models": {"sam": {"family": "sam", "architecture": "vit_b", "checkpoint": "sam.pth"}},
        "experiments": {"one": {"models": ["sam"], "schemes": ["box"]}},
    }
)

Writer = Callable[[Path, np.ndarray, np.ndarray], str]


def in_folder(folder: Path, array: np.ndarray, affine: np.ndarray) -> str:
    write_dicom(folder / "series", array, affine)
    return str(folder / "series")


def writer_of(source_format: Format, ending: str) -> Writer:
    """A writer of sources with this ending."""
    if source_format.is_series:
        return lambda folder, array, affine: pack(Path(in_folder(folder, array, affine)), folder / f"knee{ending}")
    writers = {"NRRD": write_itk, "MetaImage": write_itk, "MGH": write_mgh}
    write = writers.get(source_format.name, write_nifti)
    return lambda folder, array, affine: write(folder / f"knee{ending}", array, affine)


WRITERS: dict[str, Writer] = {
    "dicom": in_folder,
    **{end: writer_of(known, end) for known in FORMATS for end in known.endings + known.data_endings},
    "analyze": lambda folder, array, affine: write_analyze(folder / "knee.hdr", array, affine),
    "compressed nrrd": lambda folder, array, affine: write_itk(folder / "z.nrrd", array, affine, compress=True),
    "compressed mha": lambda folder, array, affine: write_itk(folder / "z.mha", array, affine, compress=True),
}


@pytest.fixture(scope="module")
def knee() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image and labels on axes R, A, S, and an oblique affine."""
    made = make_phantom(3, shape=(10, 24, 32), spacing=SPACING, contrast="dess", noise=5)
    return made.image.astype(np.int16), made.labels.astype(np.int16), oblique(SPACING)


def converted(folder: Path, image: str, reference: str = "", **row: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Frames, their affine, and the row of the volume table."""
    folder.mkdir()
    given = {"volume": "knee", "image": image, "reference": reference, **row}
    made = convert_volume(given, FRAMES, BONES, folder)
    return read_frames(folder, "knee"), nib.load(folder / "knee_frames.nii").affine, made


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SRA", "AIL", "IPL"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_and_axis_order_gives_the_same_frames(
    tmp_path: Path, knee: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str, codes: str
) -> None:
    image, labels, affine = knee
    expected, where, _ = converted(tmp_path / "expected", write_nifti(tmp_path / "expected.nii", image, affine))
    path = WRITERS[kind](tmp_path, *stored_as(codes, image, affine))
    (tmp_path / "labels").mkdir()
    reference = WRITERS[kind](tmp_path / "labels", *stored_as(codes, labels, affine))
    frames, placed, row = converted(tmp_path / "found", path, reference)
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_allclose(placed, where, atol=1e-3)
    assert not [warning for warning in row["warnings"] if "orientation" in warning]
    kept = np.where(np.isin(labels, (1, 3)), labels, 0)
    np.testing.assert_array_equal(
        stored_reference(tmp_path / "found", "knee"), np.flip(kept.transpose(0, 2, 1), (1, 2))
    )


@pytest.mark.parametrize("kind", [".nrrd", ".mha", "analyze", "dicom"])
def test_masks_of_other_formats_are_nifti_on_the_sources_grid(
    tmp_path: Path, knee: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str
) -> None:
    image, labels, affine = knee
    stored, placed = stored_as("PIR", image, affine)
    path = WRITERS[kind](tmp_path, stored, placed)
    row = {"volume": "knee", "image": path, "reference": ""}
    convert_shard([row], FRAMES, BONES, tmp_path / "000")
    grid = grid_of_row(next(read_volume_table(tmp_path / "000").itertuples()))
    femur = np.flip((labels == 1).transpose(0, 2, 1), (1, 2))
    write_mask(femur, grid, tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    with open_image(path) as opened:
        np.testing.assert_allclose(mask.affine, opened.affine, atol=1e-4)
        assert mask.shape == opened.shape
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (1, 1)
    assert mask.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(mask.header.get_qform(), mask.affine, atol=1e-3)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", grid), femur)
    # In the world the mask lies where the label lies, whatever the order of its axes.
    inside = np.argwhere(np.asarray(mask.dataobj) > 0).mean(axis=0)
    expected = affine @ [*np.argwhere(labels == 1).mean(axis=0), 1]
    np.testing.assert_allclose(mask.affine @ [*inside, 1], expected, atol=1e-2)


def test_left_posterior_superior_by_hand(tmp_path: Path) -> None:
    # ITK's first voxel lies at L 10, P 20, S 30, so at R -10, A -20; its first axis runs to the left, 2 mm a voxel.
    image = sitk.GetImageFromArray(np.zeros((4, 3, 2), np.uint8))
    image.SetOrigin((10, 20, 30))
    image.SetSpacing((2, 3, 4))
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    with open_image(str(tmp_path / "image.mha")) as opened:
        assert opened.shape == (2, 3, 4)
        np.testing.assert_allclose(opened.affine, [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])
        assert grid_of(opened, "sagittal").axes == "RIP"


NRRD = "NRRD0004\ntype: uchar\ndimension: 3\n{}sizes: 2 2 2\nencoding: raw\n\n"


@pytest.mark.parametrize(
    ("lines", "origin", "warned"),
    [
        (
            "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\n",
            -1,
            False,
        ),
        (
            "space: right-anterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\n",
            1,
            False,
        ),
        ("space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\n", -1, False),
        ("space: scanner-xyz\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\n", -1, True),
        ("spacings: 1 1 1\n", 0, True),
    ],
)
def test_spaces_of_nrrd(tmp_path: Path, lines: str, origin: float, warned: bool) -> None:
    path = tmp_path / "image.nrrd"
    path.write_bytes(NRRD.format(lines).encode() + bytes(range(8)))
    with open_image(str(path)) as opened:
        assert opened.affine[0, 3] == pytest.approx(origin)
        assert bool(opened.warnings) == warned
        assert read_voxels(opened)[1, 0, 0] == 1  # the first axis is the fastest


def test_metaimage_without_orientation_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "image.mha"
    header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
    path.write_bytes((header + "ElementSpacing = 1 1 2\nElementDataFile = LOCAL\n").encode() + bytes(range(8)))
    with open_image(str(path)) as opened:
        (warning,) = opened.warnings
    assert "says nothing about orientation; the stored axes are taken as L, P, S" in warning


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(1, 4, 3, 2)
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=False), str(tmp_path / "image.nrrd"))
    with open_image(str(tmp_path / "image.nrrd")) as opened:
        assert opened.shape == (2, 3, 4)
        np.testing.assert_array_equal(read_voxels(opened), voxels[0].T)


def test_all_trailing_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1, 1)
    path = write_nifti(tmp_path / "image.nii.gz", voxels, np.eye(4))
    with open_image(path) as opened:
        np.testing.assert_array_equal(read_voxels(opened), voxels[..., 0, 0])


# A source's parts and its digest


def test_digest_of_a_file_a_pair_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "image.nii").write_bytes(b"abc")
    assert sha256_of_source(tmp_path / "image.nii") == hashlib.sha256(b"abc").hexdigest()
    folder = tmp_path / "series"
    (folder / "inner").mkdir(parents=True)
    (folder / "b").write_bytes(b"abc")
    (folder / "inner" / "a").write_bytes(b"xyz")
    both = sorted(hashlib.sha256(content).hexdigest() for content in (b"abc", b"xyz"))
    expected = hashlib.sha256("\n".join(both).encode()).hexdigest()
    assert sha256_of_source(folder) == expected
    (folder / "b").rename(folder / "z")  # names do not count, contents do
    assert sha256_of_source(folder) == expected
    (folder / "z").write_bytes(b"abd")
    assert sha256_of_source(folder) != expected


def detached_mhd_named_mha(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    write_itk(path.with_suffix(".mhd"), array, affine)
    return str(path.with_suffix(".mhd").rename(path))


def detached_nhdr_named_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    write_itk(path.with_suffix(".nhdr"), array, affine)
    return str(path.with_suffix(".nhdr").rename(path))


# Every way in which a header has its voxels in another file: header, that file, and what writes both.
DETACHED: list[tuple[str, str, Callable[..., str]]] = [
    ("image.hdr", "image.img", write_nifti),
    ("IMAGE.HDR", "IMAGE.IMG", write_nifti),
    ("image.hdr.gz", "image.img.gz", write_nifti),
    ("image.hdr", "image.img", write_analyze),
    ("image.mhd", "image.raw", write_itk),
    ("image.nhdr", "image.raw", write_itk),
    ("image.mhd", "image.zraw", partial(write_itk, compress=True)),
    ("image.nhdr", "image.raw.gz", partial(write_itk, compress=True)),
    ("image.mha", "image.raw", detached_mhd_named_mha),
    ("image.nrrd", "image.raw", detached_nhdr_named_nrrd),
]


@pytest.mark.parametrize(("header", "data", "write"), DETACHED)
def test_the_data_file_of_a_header_belongs_to_the_source(
    tmp_path: Path, header: str, data: str, write: Callable[..., str]
) -> None:
    voxels = np.random.default_rng(1).integers(0, 900, (6, 8, 10)).astype(np.int16)
    path, data_path = write(tmp_path / header, voxels, np.eye(4)), tmp_path / data
    study = Study(SETTINGS, (), (), {}, {}, {}, DigestMemory(tmp_path / "digests.json"))
    assert data_path in parts_of(path)
    assert str(data_path) in study.sources([SheetRow("knee", path)])
    with open_image(path) as opened:
        opened.verify()
        np.testing.assert_array_equal(read_voxels(opened), voxels)
    before, content = sha256_of_source(path), data_path.read_bytes()
    data_path.write_bytes(content[::-1])
    assert sha256_of_source(path) != before
    data_path.write_bytes(content[:-10])
    with open_image(path) as opened, pytest.raises(VolumeError, match=r"damaged or cut off") as caught:
        opened.verify()
    assert caught.value.file == path
    data_path.unlink()
    with pytest.raises(VolumeError, match=f"its data file {data} is missing. Put it beside {header}"), open_image(path):
        pass


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
@pytest.mark.parametrize("listed", [True, False], ids=["list", "pattern"])
def test_data_files_for_every_slice(tmp_path: Path, ending: str, listed: bool) -> None:
    voxels = np.random.default_rng(2).integers(0, 900, (6, 8, 10)).astype(np.int16)
    path = Path(write_itk(tmp_path / f"image{ending}", voxels, np.eye(4)))
    content = (tmp_path / "image.raw").read_bytes()
    (tmp_path / "image.raw").unlink()
    slices = [tmp_path / f"slice{number:03d}.raw" for number in range(10)]
    for number, file in enumerate(slices):
        file.write_bytes(content[number * 96 : (number + 1) * 96])
    names = "\n".join(["LIST", *(file.name for file in slices)]) if listed else "slice%03d.raw 0 9 1"
    path.write_text(path.read_text().replace("image.raw", names))
    assert data_files(path) == slices
    with open_image(str(path)) as opened:
        np.testing.assert_array_equal(read_voxels(opened), voxels)
    before, last = sha256_of_source(path), slices[-1].read_bytes()
    slices[-1].write_bytes(last[::-1])
    assert sha256_of_source(path) != before
    slices[-1].write_bytes(last[:-1])
    with open_image(str(path)) as opened, pytest.raises(VolumeError, match=r"slice009\.raw has 95 bytes, 96 expected"):
        opened.verify()
    slices[4].unlink()
    with pytest.raises(VolumeError, match=r"its data file slice004\.raw is missing"), open_image(str(path)):
        pass


def test_a_pattern_cannot_ask_for_much(tmp_path: Path) -> None:
    for pattern in ("slice%09999999999d.raw 0 9 1", "slice%s.raw 0 9 1", "s%d%d.raw 0 9 1", "s%d.raw 0 99999999999 1"):
        (tmp_path / "image.nhdr").write_text(f"NRRD0004\ndata file: {pattern}\n")
        assert len(data_files(tmp_path / "image.nhdr")) in (1, 10_000)


def test_a_pair_can_be_named_by_either_file(tmp_path: Path) -> None:
    header = write_nifti(tmp_path / "image.hdr", np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    data = str(tmp_path / "image.img")
    assert set(parts_of(header)) == set(parts_of(data)) == {Path(header), Path(data)}
    assert sha256_of_source(header) == sha256_of_source(data)
    with open_image(data) as opened:
        assert read_voxels(opened)[1, 1, 1] == 7
    Path(header).unlink()
    with pytest.raises(VolumeError, match=r"its header image.hdr is missing"), open_image(data):
        pass


def test_the_matrix_of_an_analyze_image_belongs_to_it(tmp_path: Path) -> None:
    affine = oblique(SPACING)
    path = write_analyze(tmp_path / "image.hdr", np.zeros((2, 3, 4), np.int16), affine)
    assert data_files(path) == [tmp_path / "image.img", tmp_path / "image.mat"]
    with open_image(path) as opened:
        np.testing.assert_allclose(opened.affine, affine)
        assert not opened.warnings
        assert opened.header["sform_code"] == 1  # masks say where they lie, though the source's header could not
    (tmp_path / "image.mat").unlink()
    with open_image(path) as opened:
        (warning,) = opened.warnings
    assert "says nothing about orientation" in warning


def test_files_with_all_their_voxels_inside_have_no_data_file(tmp_path: Path) -> None:
    for name in ("image.mha", "image.nrrd", "image.nii"):
        write = write_nifti if name == "image.nii" else write_itk
        write(tmp_path / name, np.zeros((2, 2, 2), np.int16), np.eye(4))
        assert parts_of(tmp_path / name) == [tmp_path / name]


def test_voxels_are_not_searched_for_the_name_of_a_data_file(tmp_path: Path) -> None:
    lines = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\n"
    path = tmp_path / "image.nrrd"
    path.write_bytes(NRRD.format(lines).encode() + b"\ndata file: x.raw\n")
    assert data_files(path) == []


# The table of formats


def test_the_longer_ending_counts() -> None:
    assert (ending_of("Knee.NII.GZ"), ending_of("a.tar.gz"), ending_of("a.b.nii")) == (".nii.gz", ".tar.gz", ".nii")
    assert (ending_of("image.gz"), format_of("image.txt"), format_of("image")) == ("", None, None)


@pytest.mark.parametrize("name", ["image.mnc", "image.par", "image.nii.bz2", "image.png", "image"])
def test_what_is_not_in_the_table_is_refused_with_all_that_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(1000))
    with pytest.raises(VolumeError) as caught, open_image(str(tmp_path / name)):
        pass
    assert str(caught.value) == (
        f"{tmp_path / name}: cannot be read as an image (no format that is read has this ending); expected "
        "NIfTI (.nii, .nii.gz), NIfTI or Analyze pair (.hdr, .hdr.gz with .img, .img.gz), MGH (.mgh, .mgz), "
        "NRRD (.nrrd, .nhdr), "
        "MetaImage (.mha, .mhd) or DICOM series (folder, .zip, .tar, .tar.gz, .tgz)"
    )


def test_every_format_stands_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "inputs.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    documented = {name: re.findall(r"`(\.[a-z.]+)`", cell) for name, cell, *_ in rows}
    assert [name for name in documented if name in {known.name for known in FORMATS}] == [f.name for f in FORMATS]
    for known in FORMATS:
        assert set(documented[known.name]) == set(known.endings + known.data_endings), known.name


# References on other grids


def test_a_reference_is_resampled_to_the_nearest_voxel_where_asked(tmp_path: Path) -> None:
    """Image of 4 voxels of 1 mm at 0, 1, 2, 3; reference of 2 voxels of 2 mm at 0.6 and 2.6, stored right to left.

    Reference voxels reach from -0.4 to 1.6 and from 1.6 to 3.6, so image voxels 0 and 1 take the first label, and 2 and
    3 the second. Across, the reference has one row at 0 of the image's two: the other row lies outside.
    """
    image = np.zeros((4, 2, 2), np.int16)
    image[0] = 100
    path = write_nifti(tmp_path / "image.nii", image, np.eye(4))
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])
    affine[0, 3] = 2.6
    reference = write_nifti(tmp_path / "reference.nii", np.array([3, 1], np.int16).reshape(2, 1, 1), affine)
    row = {"volume": "knee", "image": path, "reference": reference}
    settings = {**FRAMES, "intensity_percentiles": [0, 100]}
    with pytest.raises(VolumeError, match="lies on another grid"):
        convert_volume(row, settings, BONES, tmp_path)
    made = convert_volume(row, settings, BONES, tmp_path, resample="nearest")
    stored = stored_reference(tmp_path, "knee")
    assert stored is not None
    np.testing.assert_array_equal(stored[:, 1, 1], [1, 1, 3, 3])  # y and x of the frames run the other way
    assert np.count_nonzero(stored) == 4
    (warning,) = made["warnings"]
    assert warning.startswith(f"{reference}: resampled to the nearest voxel of {path}")
    assert is_notice(warning)
    assert "2 x 1 x 1 voxels" in warning
    assert "4 x 2 x 2 voxels" in warning


def test_a_reference_on_the_images_grid_is_not_resampled(tmp_path: Path) -> None:
    image = np.arange(27, dtype=np.int16).reshape(3, 3, 3)
    path = write_nifti(tmp_path / "image.nii", image, np.eye(4))
    row = {"volume": "knee", "image": path, "reference": path}
    made = convert_volume(row, FRAMES, {"all": list(range(1, 27))}, tmp_path, resample="nearest")
    assert made["warnings"] == []
