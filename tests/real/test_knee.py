"""The workflow on a real knee MR with manual bone masks (its label numbers: see the parameters)."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.workflow.small_study import Study, new_study

from volprompt.prompts.candidates import extract_shard, read_prompts
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_volume_table

pytestmark = pytest.mark.real

FRAMES = {"axis": "sagittal", "intensity_percentiles": [0.5, 99.5], "coding": "lossless"}
BONES = {"femur": [1], "tibia": [3], "patella": [5]}


def knee(shared_data: Path, name: str) -> dict[str, str]:
    """A row of a sample sheet."""
    folder = shared_data / "knee_mr"
    image, reference = folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz"
    return {"volume": "knee", "image": str(image), "reference": str(reference)}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@pytest.fixture
def prompts(shared_data: Path, converted: Path) -> pd.DataFrame:
    """The prompt table of the knee on the grid of OAI-ZIB, 160 x 384 x 384."""
    if not (converted / "prompts.parquet").exists():
        convert_shard([knee(shared_data, "kneebones3dify")], FRAMES, BONES, converted / "volumes")
        extract_shard(converted / "volumes", BONES, [], converted / "prompts.parquet")
    return read_prompts(converted / "prompts.parquet")


def test_grid_of_the_papers_data(prompts: pd.DataFrame, converted: Path) -> None:
    (row,) = read_volume_table(converted / "volumes").itertuples()
    assert row.status == "ok", row.reason
    assert list(row.shape) == [160, 384, 384]
    assert list(row.spacing) == pytest.approx([0.7, 0.365, 0.365], abs=1e-3)


def test_at_most_one_point_and_box_per_slice_and_bone(prompts: pd.DataFrame) -> None:
    scored = prompts[prompts["structure"].isin(["femur", "tibia"])]
    counts = scored["origin"].value_counts()
    assert 0 < counts["centroid"] <= 320
    assert counts["centroid"] == counts["interior"] == counts["bounding_box"]
    assert not scored.duplicated(["structure", "slice", "origin"]).any()


def test_prompts_against_plain_numpy_on_the_stored_array(prompts: pd.DataFrame, shared_data: Path) -> None:
    """One slice worked out on the array as it lies in the file, axes R, A, S: x = A reversed, y = S reversed."""
    labels = np.asarray(nib.load(knee(shared_data, "kneebones3dify")["reference"]).dataobj)
    _, anterior, superior = labels.shape
    a, s = np.nonzero(labels[80] == 1)
    femur = prompts[(prompts["structure"] == "femur") & (prompts["slice"] == 80)].set_index("origin")
    assert femur.loc["centroid", "x"] == pytest.approx(anterior - 1 - a.mean(), abs=1e-3)
    assert femur.loc["centroid", "y"] == pytest.approx(superior - 1 - s.mean(), abs=1e-3)
    box = femur.loc["bounding_box"]
    expected = [anterior - 1 - a.max(), superior - 1 - s.max(), anterior - 1 - a.min(), superior - 1 - s.min()]
    assert [box["x"], box["y"], box["x2"], box["y2"]] == expected
    assert box["area"] == len(a)


def test_frames_show_the_knee_upright_and_facing_left(prompts: pd.DataFrame) -> None:
    centres = prompts[prompts["origin"] == "centroid"].groupby("structure")[["x", "y"]].mean()
    assert centres.loc["femur", "y"] < centres.loc["tibia", "y"]
    assert centres.loc["patella", "x"] < centres.loc["femur", "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_conversion_stays_under_a_gigabyte(shared_data: Path, tmp_path: Path) -> None:
    row = knee(shared_data, "kneebones3dify")
    code = (
        "from volprompt.volumes.convert import convert_shard\n"
        f"convert_shard([{row!r}], {FRAMES!r}, {BONES!r}, {str(tmp_path)!r})\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < 1e9


def test_masks_and_tables_of_every_scheme(shared_data: Path, tmp_path: Path) -> None:
    """16 sagittal slices of the smaller file of the same knee (labels 1 femur, 2 tibia, 3 patella), from the patella to
    beyond the femur, small models of both families.

    Untrained models speckle: on all 200 slices, measuring the surfaces of it takes two minutes. A report on real data
    is made of a spinal cord (test_spinal_cord.py).
    """
    study: Study = new_study(tmp_path)
    row = knee(shared_data, "kneebones3dify_small") | {"image": "image.nii.gz", "reference": "labels.nii.gz"}
    for column, path in knee(shared_data, "kneebones3dify_small").items():
        if column != "volume":
            nib.save(nib.load(path).slicer[158:174], tmp_path / row[column])
    (tmp_path / "volumes.tsv").write_text(f"volume\timage\treference\nknee\t{row['image']}\t{row['reference']}\n")
    structures = {"femur": {"labels": [1]}, "tibia": {"labels": [2]}, "patella": {"labels": [3], "scored": False}}
    study.configure(structures=structures, shards=1)
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    scores = pd.read_parquet(tmp_path / "results" / "tables" / "scores.parquet")
    assert set(scores["status"]) == {"ok"}
    assert len(scores) == 6 * 5
    image = nib.load(tmp_path / row["image"])
    masks = sorted((tmp_path / "results" / "masks").rglob("*_mask.nii.gz"))
    assert len(masks) == 12
    for path in masks:
        mask = nib.load(path)
        assert mask.shape == image.shape
        assert (mask.affine == image.affine).all()
        assert mask.header["sform_code"] == image.header["sform_code"]
        assert mask.header["qform_code"] == image.header["qform_code"]
    reference = np.asarray(nib.load(tmp_path / row["reference"]).dataobj)
    box = np.asarray(nib.load(next(path for path in masks if "/box/" in str(path) and "femur" in path.name)).dataobj)
    # An image scheme prompts the slices that show the bone, and only those.
    shown = (reference == 1).any(axis=(1, 2))
    assert shown.any()
    assert not shown.all()
    assert not box[~shown].any()
