"""Volumes without reference: clicks alone prompt them, and they have masks and no scores."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.conftest import MadeOnce
from tests.workflow.small_study import VOLUMES, Study, new_study

from volprompt.volumes.grid import grid_of
from volprompt.volumes.images.opening import open_image, read_voxels

# The middle of 12 slices, on which the phantoms show all three structures.
CLICKED = 6
SCHEMES = {
    "point": {"predictor": "image", "point": "click"},
    "point_video": {"predictor": "video", "point": ["click", "centroid"]},
    "three_points_video": {"predictor": "video", "point": ["click", "centroid"], "negatives": "others"},
}


def frames_of(path: str, image: str) -> np.ndarray:
    """The voxels of a file as sagittal frames of the image whose grid it lies on."""
    with open_image(path) as voxels, open_image(image) as grid:
        return grid_of(grid, "sagittal").to_frames(read_voxels(voxels))


def click_where_a_person_would(study: Study, volume: str) -> list[str]:
    """A click near the middle of each structure, from the phantom's labels, which the study is not told."""
    path = str(study.folder / "volumes" / f"{volume}_labels.nii.gz")
    labels = frames_of(path, path)[CLICKED]
    rows = []
    for structure, label in (("femur", 1), ("tibia", 3), ("patella", 5)):
        y, x = np.nonzero(labels == label)
        rows.append(f"{volume},{structure},{CLICKED},{x.mean():.2f},{y.mean():.2f}")
    return rows


@pytest.fixture(scope="module")
def clicked(made_once: MadeOnce) -> Study:
    """A study without any reference, after its first run."""

    def make(folder: Path) -> None:
        study = new_study(folder)
        rows = [row for volume in VOLUMES for row in click_where_a_person_would(study, volume)]
        (study.folder / "clicks.csv").write_text("\n".join(["volume,structure,slice,x,y", *rows]) + "\n")
        give_references(study)
        experiments = {"sam2": {"models": ["small_sam2"], "schemes": list(SCHEMES)}}
        study.configure(clicks="clicks.csv", schemes=SCHEMES, experiments=experiments)
        run = study.run()
        assert run.code == 0, run.text
        assert "3 volumes, 3 configurations, 0.0% of the volume-configuration pairs failed" in run.text

    return Study(made_once("clicked", make))


def give_references(study: Study, *volumes: str) -> None:
    """Write the sheet with references for these volumes alone."""
    rows = [f"{name}\tvolumes/{name}_image.nii.gz\t" for name in VOLUMES]
    rows = [row + f"volumes/{row.split(chr(9))[0]}_labels.nii.gz" * (row.split("\t")[0] in volumes) for row in rows]
    (study.folder / "volumes.tsv").write_text("\n".join(["volume\timage\treference", *rows]) + "\n")


def test_every_volume_has_masks_and_none_has_scores(clicked: Study) -> None:
    results = clicked.folder / "results"
    scores = pd.read_parquet(results / "tables" / "scores.parquet")
    assert set(scores["status"]) == {"no_reference"}
    assert len(scores) == len(VOLUMES) * len(SCHEMES) * 5  # femur, tibia, combined, union, mean
    assert scores["dice"].isna().all()
    masks = sorted(results.glob("masks/sam2/small_sam2/*/*/*_mask.nii.gz"))
    assert len(masks) == len(VOLUMES) * len(SCHEMES) * 2
    for path in masks:
        volume = path.name.split("_label-")[0]
        mask, image = nib.load(path), nib.load(clicked.folder / "volumes" / f"{volume}_image.nii.gz")
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        if path.parent.name != "point":
            assert np.asarray(mask.dataobj).any()
    assert not list(results.glob("volumes/*/*_reference.nii.gz"))
    assert len(pd.read_csv(results / "tables" / "failures.csv")) == 0
    medians = pd.read_csv(results / "tables" / "medians.csv")
    assert list(medians["n"]) == [0, 0, 0]


def test_an_image_scheme_is_prompted_where_the_clicks_are(clicked: Study) -> None:
    """Without reference nothing but the clicks says on which slices a structure lies."""
    for path in clicked.folder.glob("results/masks/sam2/small_sam2/*/point/*_mask.nii.gz"):
        volume = path.name.split("_label-")[0]
        source = str(clicked.folder / "volumes" / f"{volume}_image.nii.gz")
        assert set(np.flatnonzero(frames_of(str(path), source).any(axis=(1, 2)))) <= {CLICKED}


def test_the_report_is_there(clicked: Study) -> None:
    page = (clicked.folder / "results" / "report" / "index.html").read_text()
    assert "Nothing failed" in page
    assert "No volume could be scored" in page


def test_scores_for_the_volumes_that_get_a_reference(clicked: Study, tmp_path: Path) -> None:
    study = clicked.copy_to(tmp_path)
    give_references(study, "knee_a")
    planned = study.plan()
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert planned["segment"] == run.jobs["segment"] == 1  # knee_a's shard alone
    scores = pd.read_parquet(study.folder / "results" / "tables" / "scores.parquet")
    status = scores.groupby("volume")["status"].agg(lambda values: list(set(values)))
    assert status.to_dict() == {"knee_a": ["ok"], "knee_b": ["no_reference"], "knee_d": ["no_reference"]}
    assert scores.loc[scores["structure"] == "femur", "dice"].notna().sum() == len(SCHEMES)


def test_a_volume_without_a_needed_click_fails_with_the_reason(clicked: Study, tmp_path: Path) -> None:
    study = clicked.copy_to(tmp_path)
    table = study.folder / "clicks.csv"
    table.write_text("".join(r for r in table.read_text().splitlines(True) if not r.startswith("knee_d,patella")))
    run = study.run()
    assert run.code != 0
    advice = "prompt another slice (slice: nearest or largest), or click on that one"
    assert f"slice 6 has no point (click or centroid) for 'patella'; {advice}" in run.text
    failures = pd.read_csv(study.folder / "results" / "tables" / "failures.csv")
    assert failures[["volume", "scheme"]].values.tolist() == [["knee_d", "three_points_video"]]
