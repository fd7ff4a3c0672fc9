"""Real files of other formats than NIfTI: a DESS series in DICOM, and a label map in NRRD."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.unit.image_files import pack
from tests.workflow.small_study import new_study

from volprompt.prompts.candidates import extract_shard, read_prompts
from volprompt.study.check import check_volumes
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_volume_table
from volprompt.volumes.images.opening import open_image

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
    row = {"volume": "knee", "image": str(path), "reference": str(path)}
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
        {"volume": f"v{number}", "image": str(image), "reference": str(reference)}
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


def test_a_dicom_series_with_clicks_and_no_reference(shared_data: Path, tmp_path: Path) -> None:
    """The workflow on the archive of a real DESS series: one click on one slice."""
    study = new_study(tmp_path)
    archive = pack(shared_data / "dess_dicom", tmp_path / "9000001_10000001.tar.gz")
    (tmp_path / "volumes.tsv").write_text(f"volume\timage\treference\tseries\nknee\t{archive}\t\tsag dess*\n")
    (tmp_path / "clicks.csv").write_text("volume,structure,slice,x,y\nknee,femur,40,250,150\n")
    study.configure(
        clicks="clicks.csv",
        shards=1,
        structures={"femur": {"labels": [1]}},
        schemes={"clicked": {"predictor": "image", "point": "click"}},
        experiments={"sam1": {"models": ["small_sam"], "schemes": ["clicked"]}},
    )
    run = study.run()
    assert run.code == 0, run.text
    scores = pd.read_parquet(tmp_path / "results" / "tables" / "scores.parquet")
    assert set(scores["status"]) == {"no_reference"}
    (mask,) = (tmp_path / "results" / "masks").rglob("knee_label-femur_mask.nii.gz")
    written = nib.load(mask)
    with open_image(archive) as image:
        assert written.shape == image.shape == (512, 512, 80)
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
    # The click's frame is the one stored slice with a mask, and the mask is where the frames say.
    voxels = np.asarray(written.dataobj)
    assert np.flatnonzero(voxels.any(axis=(0, 1))).tolist() == [40]
    texts = [path for path in (tmp_path / "results").rglob("*") if path.suffix in (".log", ".csv", ".tsv", ".html")]
    assert len(texts) > 10
    # The description of the series stands in the sheet alone; the header's own words are nowhere.
    assert not [path for path in texts if "HiRes thk1p5" in path.read_text()]
