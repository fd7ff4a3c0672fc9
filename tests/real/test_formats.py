"""Real files of other formats than NIfTI: a DESS series in DICOM, and a label map in NRRD."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volprompt.check import check_volumes
from volprompt.prompts import extract_shard, read_prompts
from volprompt.volumes import convert_shard, read_volume_table

pytestmark = pytest.mark.real

FRAMES = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
BONES = {"femur": [5], "tibia": [6], "patella": [7]}


def nrrd_by_hand(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (fastest axis first) and the three space directions of a gzipped NRRD, without any imaging library."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([a-z ]+): (.*)$", head.decode(), re.MULTILINE))
    assert (fields["encoding"], fields["type"]) == ("gzip", "unsigned char")
    assert fields["space"] == "left-posterior-superior"
    sizes = [int(size) for size in fields["sizes"].split()]
    directions = np.array(
        [[float(v) for v in one.split(",")] for one in re.findall(r"\(([^)]*)\)", fields["space directions"])]
    )
    return np.frombuffer(gzip.decompress(body), np.uint8).reshape(sizes, order="F"), directions


def test_prompts_of_the_nrrd_label_map(shared_data: Path, tmp_path: Path) -> None:
    """Centroid and box of every slice and bone, from the file's bytes: the label map is image and reference at once."""
    path = shared_data / "oai_labels" / "oai_dess_right_label.nrrd"
    row = {"volume": "knee", "image": str(path), "reference": str(path), "group": ""}
    convert_shard([row], FRAMES, BONES, tmp_path / "volumes")
    (found,) = read_volume_table(tmp_path / "volumes").itertuples()
    assert found.status == "ok", found.reason
    assert list(found.shape) == [160, 384, 384]
    assert list(found.spacing) == pytest.approx([0.7, 0.36458, 0.36458], abs=1e-3)
    extract_shard(tmp_path / "volumes", BONES, [], tmp_path / "prompts.parquet")
    table = read_prompts(tmp_path / "prompts.parquet")

    voxels, directions = nrrd_by_hand(path)
    # Stored axes: the first runs to the back (second entry positive), the second downwards (third entry negative), the
    # third to the right (first entry negative). That is x, y and slice of a sagittal frame as they are.
    assert directions[0, 1] > 0.3
    assert directions[1, 2] < -0.3
    assert directions[2, 0] < -0.3
    expected = {}
    for name, (label,) in BONES.items():
        for index in range(voxels.shape[2]):
            x, y = np.nonzero(voxels[:, :, index] == label)
            if len(x):
                expected[name, index] = [x.mean(), y.mean(), x.min(), y.min(), x.max(), y.max(), len(x)]
    assert len(expected) > 200
    centroids = table[table["origin"] == "centroid"].set_index(["structure", "slice"])
    boxes = table[table["origin"] == "bounding_box"].set_index(["structure", "slice"])
    assert set(centroids.index) == set(boxes.index) == set(expected)
    for key, values in expected.items():
        got = [*centroids.loc[key, ["x", "y"]], *boxes.loc[key, ["x", "y", "x2", "y2", "area"]]]
        np.testing.assert_allclose(np.array(got, float), values, atol=1e-3)


def test_headers_of_all_real_files(shared_data: Path, tmp_path: Path) -> None:
    knee, cord = shared_data / "knee_mr", shared_data / "spinal_cord"
    pairs = [
        (knee / "kneebones3dify_image.nii.gz", knee / "kneebones3dify_label.nii.gz"),
        (knee / "kneebones3dify_small_image.nii.gz", knee / "kneebones3dify_small_label.nii.gz"),
        (cord / "t2_image.nii.gz", cord / "t2_label.nii.gz"),
        (shared_data / "dess_dicom", ""),
    ]
    rows = [
        {"volume": f"v{number}", "image": str(image), "reference": str(reference), "group": ""}
        for number, (image, reference) in enumerate(pairs)
    ]
    assert check_volumes(rows, "sagittal", None, tmp_path / "faults.tsv") == []
    # A DESS label map of another knee does not belong to the series.
    rows[3]["reference"] = str(shared_data / "oai_labels" / "oai_dess_right_label.nrrd")
    (fault,) = check_volumes(rows, "sagittal", None, tmp_path / "faults.tsv")
    assert fault.finding.startswith("lies on another grid than")
    assert "512 x 512 x 80 voxels" in fault.finding
    assert "384 x 384 x 160 voxels" in fault.finding
    assert pd.read_csv(tmp_path / "faults.tsv", sep="\t")["volume"].tolist() == ["v3"]
