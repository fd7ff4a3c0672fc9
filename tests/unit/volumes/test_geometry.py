"""Where voxels lie: headers that leave it out, and grids that no volume can have, in every format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.unit.image_files import oblique, write_itk, write_mgh, write_nifti

from volprompt.segmentation.masks import write_mask
from volprompt.volumes.grid import grid_of
from volprompt.volumes.images.image import VolumeError
from volprompt.volumes.images.opening import open_image, read_voxels
from volprompt.volumes.references import read_labels

SIZES = (2.0, 0.5, 0.7)
VOXELS = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)


def save_sizes_alone(image_class: Any, data: str, header: str, path: Path) -> Path:
    """Save an image with voxel sizes and no orientation. data, header: endings of its two files, or of the one."""
    image = image_class(VOXELS, None)
    image.header.set_zooms(SIZES)
    nib.save(image, path.with_suffix(data))
    return path.with_suffix(header)


nifti1 = partial(save_sizes_alone, nib.Nifti1Image, ".nii", ".nii")
nifti2 = partial(save_sizes_alone, nib.Nifti2Image, ".nii.gz", ".nii.gz")
pair = partial(save_sizes_alone, nib.Nifti1Pair, ".img", ".hdr")
analyze = partial(save_sizes_alone, nib.AnalyzeImage, ".img", ".hdr")


def mgh(path: Path) -> Path:
    path = Path(write_mgh(path.with_suffix(".mgh"), VOXELS, np.diag([*SIZES, 1.0])))
    content = path.read_bytes()
    path.write_bytes(content[:28] + bytes(2) + content[30:])  # goodRASFlag
    return path


@pytest.mark.parametrize("write", [nifti1, nifti2, pair, analyze, mgh])
def test_without_orientation_the_axes_are_r_a_s_by_the_voxel_sizes(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / "image")
    with open_image(str(path)) as image:
        np.testing.assert_allclose(image.affine, np.diag([*SIZES, 1.0]), atol=1e-6)
        assert not image.oriented
        assert image.warnings == (
            f"{path}: the header says nothing about orientation; the stored axes are taken as R, A, S",
        )
        frames = grid_of(image, "sagittal").to_frames(read_voxels(image))
    np.testing.assert_array_equal(frames, VOXELS[:, ::-1, ::-1].transpose(0, 2, 1))


@pytest.mark.parametrize("write", [nifti1, nifti2])
def test_a_mask_of_an_image_without_orientation_has_none_either(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Whatever a viewer makes of the image, it makes of the mask."""
    path = write(tmp_path / "image")
    with open_image(str(path)) as image:
        grid = grid_of(image, "sagittal")
        write_mask(grid.to_frames(read_voxels(image)) > 100, grid, tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (0, 0)
    np.testing.assert_allclose(mask.affine, nib.load(path).affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), VOXELS > 100)


@pytest.mark.parametrize("resample", [None, "nearest"])
@pytest.mark.parametrize("without", ["image", "reference"])
def test_an_orientation_on_one_side_alone_is_refused(tmp_path: Path, resample: str | None, without: str) -> None:
    plain = str(nifti1(tmp_path / "plain"))
    oriented = write_nifti(tmp_path / "oriented.nii", VOXELS % 3, np.diag([-2.0, 0.5, 0.7, 1.0]))
    first, second = (plain, oriented) if without == "image" else (oriented, plain)
    refused = pytest.raises(VolumeError, match="says nothing about orientation")
    with open_image(first) as image, open_image(second) as reference, refused as caught:
        read_labels(reference, image, resample)
    assert f"Write the orientation into the header of {plain}" in str(caught.value)


def test_without_orientation_on_both_sides_voxels_belong_to_voxels(tmp_path: Path) -> None:
    with open_image(str(nifti1(tmp_path / "image"))) as image, open_image(str(mgh(tmp_path / "labels"))) as reference:
        label_map, warnings = read_labels(reference, image)
    np.testing.assert_array_equal(label_map, VOXELS)
    assert not warnings


def gantry_tilt(degrees: float) -> np.ndarray:
    """Slices that are shifted along the second axis, as a CT with a tilted gantry stores them."""
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(degrees))
    return affine


@pytest.mark.parametrize(
    ("name", "write"),
    [("image.nii.gz", write_nifti), ("image.mgz", write_mgh), ("image.nrrd", write_itk), ("image.mha", write_itk)],
)
def test_a_tilted_gantry_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path, np.ndarray, np.ndarray], str]
) -> None:
    path = write(tmp_path / name, VOXELS, gantry_tilt(25))
    with open_image(path) as image, pytest.raises(VolumeError, match=r"at an angle of 65 degrees \(a tilted gantry\)"):
        grid_of(image, "axial")


def test_a_tilted_reference_is_refused_too(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii", VOXELS, np.eye(4))
    labels = write_nifti(tmp_path / "labels.nii", VOXELS, gantry_tilt(10))
    with open_image(path) as image, open_image(labels) as reference, pytest.raises(VolumeError, match="tilted gantry"):
        read_labels(reference, image, "nearest")


@pytest.mark.parametrize("affine", [oblique(SIZES), np.diag([*SIZES, 1.0]), gantry_tilt(0.5)])
def test_oblique_and_rounded_grids_pass(tmp_path: Path, affine: np.ndarray) -> None:
    path = write_nifti(tmp_path / "image.nii", VOXELS, affine)
    with open_image(path) as image:
        grid_of(image, "axial")
        assert not image.warnings


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_a_missing_slice_thickness_is_a_warning(tmp_path: Path, size: float) -> None:
    image = nib.Nifti1Image(VOXELS, np.diag([*SIZES, 1.0]))
    image.set_sform(None, code=0)
    image.set_qform(image.affine, code=1)
    image.header["pixdim"][3] = size
    (tmp_path / "image.nii").write_bytes(image.header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))
    with open_image(str(tmp_path / "image.nii")) as opened:
        (warning,) = opened.warnings
    assert "gives no voxel size along its third axis; 1 mm is taken" in warning


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("image.mha", ""),
        ("image.nrrd", ""),
        ("image.nrrd", "spacings: 1 1 nan\n"),
        ("image.mha", "ElementSpacing = 1 1 3\n"),
        ("image.nrrd", "spacings: 1 1 3\n"),
    ],
)
def test_voxel_sizes_of_nrrd_and_metaimage(tmp_path: Path, name: str, line: str) -> None:
    if name == "image.mha":
        header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
        header += f"TransformMatrix = 1 0 0 0 1 0 0 0 1\n{line}ElementDataFile = LOCAL\n"
    else:
        header = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\n{line}encoding: raw\n\n"
    (tmp_path / name).write_bytes(header.encode() + bytes(range(8)))
    with open_image(str(tmp_path / name)) as opened:
        without = [warning for warning in opened.warnings if "gives no voxel size" in warning]
    assert bool(without) == ("3\n" not in line)
