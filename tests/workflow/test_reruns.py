"""What runs again after a change: exactly the jobs whose results can differ."""

import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import safetensors.torch
import torch
from tests.workflow.small_study import SAM, Study

from volprompt.study.study import shard_of


def test_first_run_makes_everything(finished: Study) -> None:
    results = finished.folder / "results"
    scores = pd.read_parquet(results / "tables" / "scores.parquet")
    assert (scores["status"] == "ok").all()
    # 3 volumes x 5 configurations x (femur, tibia, combined, union, mean)
    assert len(scores) == 3 * 5 * 5
    medians = pd.read_csv(results / "tables" / "medians.csv")
    assert list(medians["model"] + "/" + medians["scheme"]) == [
        "small_sam/point",
        "small_sam/box",
        "small_sam2/point",
        "small_sam2/point_video",
        "small_sam2/three_points_video",
    ]
    assert (medians["n"] == 3).all()
    assert (results / "complete.txt").read_text().startswith("3 volumes, 5 configurations, 0.0%")
    for volume in ("knee_a", "knee_b", "knee_d"):
        masks = list(results.glob(f"masks/*/*/*/*/{volume}_label-*_mask.nii.gz"))
        assert len(masks) == 10
        image = nib.load(finished.folder / "volumes" / f"{volume}_image.nii.gz")
        for path in masks:
            mask = nib.load(path)
            assert mask.shape == image.shape
            assert np.allclose(mask.affine, image.affine)
    assert (results / "report" / "index.html").read_text().count("<img ") == 2
    assert {path.suffix for path in (results / "report" / "figures").iterdir()} >= {".svg", ".pdf"}


def test_nothing_changed(study: Study) -> None:
    assert study.plan() == {}


def test_touched_checkpoint_and_script(study: Study) -> None:
    later = time.time() + 10
    os.utime(study.folder / "models" / "small.pt", (later, later))
    assert study.plan() == {}


def test_same_weights_saved_again(study: Study) -> None:
    path = study.folder / "models" / "small.pth"
    torch.save(torch.load(path, weights_only=True), path)
    assert study.plan() == {}


def test_changed_checkpoint_reruns_its_model(study: Study) -> None:
    study.add_checkpoint("models/small.pt", seed=5)
    assert study.plan() == {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}


def test_new_model_adds_its_own_jobs(study: Study) -> None:
    study.add_checkpoint("models/other.pth", seed=6)
    config = study.config
    config["models"]["other_sam"] = {"family": "sam", "architecture": str(SAM), "checkpoint": "models/other.pth"}
    config["experiments"]["sam1"]["models"].append("other_sam")
    study.configure(**config)
    assert study.plan() == {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}


def test_new_scheme_in_a_new_experiment_adds_its_own_jobs(study: Study) -> None:
    config = study.config
    config["schemes"]["interior"] = {"predictor": "image", "point": "interior"}
    config["experiments"]["more"] = {"models": ["small_sam"], "schemes": ["interior"]}
    study.configure(**config)
    assert study.plan() == {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}


def test_changed_scheme_reruns_its_experiments(study: Study) -> None:
    config = study.config
    config["schemes"]["box"]["point"] = "centroid"  # part of experiment sam1 only
    study.configure(**config)
    assert study.plan() == {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}


def test_repetitions_of_noise_are_schemes_of_their_own(study: Study) -> None:
    config = study.config
    noise = {"points_mm": 3, "repetitions": 3}
    config["schemes"]["noisy"] = {"predictor": "image", "point": "centroid", "noise": noise}
    config["experiments"]["noise"] = {"models": ["small_sam"], "schemes": ["noisy"]}
    study.configure(**config)
    assert study.plan() == {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}


def test_a_preset_reruns_what_its_settings_change(study: Study) -> None:
    """`paper` stores frames as JPEG, so everything runs; with lossless frames `best` changes inference alone."""
    study.configure(preset="paper")
    assert study.plan()["convert"] == 2
    study.configure(preset="best")
    assert study.plan() == {"segment": 4, "score": 4, "aggregate": 1, "report": 1, "all": 1}


def test_a_growing_folder_of_checkpoints(study: Study) -> None:
    """A training run saves one file after another: each adds its own jobs, and a replaced one runs again alone."""
    config = study.config
    tuned = {"family": "sam", "architecture": str(SAM), "checkpoints": "training/*"}
    config["models"]["tuned"] = tuned
    config["experiments"]["training"] = {"models": ["tuned"], "schemes": ["box"]}
    del config["experiments"]["sam2"]  # has nothing to do with it, and the report on it takes seconds
    study.add_checkpoint("training/step_100.pth", seed=11)
    study.configure(**config)
    one_model = {"segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}
    assert study.plan() == one_model
    run = study.run()
    assert run.code == 0, run.text
    assert study.plan() == {}
    masks = study.folder / "results" / "masks" / "training"
    first = {path: path.stat().st_mtime_ns for path in masks.rglob("*.nii.gz")}
    assert len(first) == 3 * 2

    study.add_checkpoint("training/other.pth", seed=12)
    (study.folder / "training" / "step_200.safetensors").write_bytes(
        safetensors.torch.save(torch.load(study.folder / "training" / "other.pth", weights_only=True))
    )
    (study.folder / "training" / "other.pth").unlink()
    assert study.plan() == one_model
    run = study.run()
    assert run.code == 0, run.text
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert {path.name for path in masks.iterdir()} == {"tuned_step_100", "tuned_step_200"}
    assert study.plan() == {}
    medians = pd.read_csv(study.folder / "results" / "tables" / "medians.csv")
    assert list(medians["model"])[-2:] == ["tuned_step_100", "tuned_step_200"]

    study.add_checkpoint("training/step_100.pth", seed=13)
    plan = study.run("--dry-run", "--logger", "jobs")
    assert plan.jobs == one_model
    assert {job["wildcards"].get("model", "tuned_step_100") for job in plan.planned} == {"tuned_step_100"}


def test_changed_report_setting_reruns_the_report(study: Study) -> None:
    study.configure(report={"title": "Another title"})
    assert study.plan() == {"report": 1, "all": 1}


def test_smaller_batches_rerun_no_segmentation(study: Study) -> None:
    study.configure(inference={"device": "cpu", "batch_size": 1, "objects_together": 2})
    assert study.plan() == {"report": 1, "all": 1}
    run = study.run("--forcerun", "results/masks/sam1/small_sam/000", "--until", "segment")
    assert run.code == 0, run.text
    log = study.folder / "results" / "logs" / "segment" / "sam1" / "small_sam" / "000.log"
    assert "batch_size 1, objects_together 2" in log.read_text()


def test_subjects_rerun_the_statistics_alone(study: Study) -> None:
    head, *rows = (study.folder / "volumes.tsv").read_text().splitlines()
    with_groups = [f"{head}\tgroup", *(f"{row}\tone subject" for row in rows)]
    (study.folder / "volumes.tsv").write_text("\n".join(with_groups) + "\n")
    assert study.plan() == {"aggregate": 1, "report": 1, "all": 1}


def test_changed_labels_rerun_everything(study: Study) -> None:
    config = study.config
    config["structures"]["femur"]["labels"] = [1, 2]
    study.configure(**config)
    planned = study.plan()
    assert planned["convert"] == 2
    assert planned["segment"] == 4


def test_new_click_reruns_its_shard_only(study: Study) -> None:
    (study.folder / "clicks.csv").write_text("volume,structure,slice,x,y\nknee_d,femur,6,20,12\n")
    study.configure(clicks="clicks.csv")
    # knee_d is alone in its shard: prompts, and the masks and scores of both models.
    expected = {"extract_prompts": 1, "segment": 2, "score": 2, "aggregate": 1, "report": 1, "all": 1}
    assert study.plan() == expected


def test_new_volume_runs_its_shard_only(study: Study) -> None:
    assert shard_of("knee_e", 2) == shard_of("knee_d", 2) != shard_of("knee_a", 2)
    untouched = {path: path.stat().st_mtime_ns for path in masks_of(study, "knee_a")}
    before = pd.read_parquet(study.folder / "results" / "tables" / "scores.parquet")
    study.add_volume("knee_e", seed=5)
    run = study.run()
    assert run.code == 0, run.text
    assert run.jobs == {
        "convert": 1,
        "extract_prompts": 1,
        "segment": 2,
        "score": 2,
        "aggregate": 1,
        "report": 1,
        "all": 1,
    }
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    after = pd.read_parquet(study.folder / "results" / "tables" / "scores.parquet")
    keys = ["model", "scheme", "volume", "structure"]
    merged = before.merge(after, on=keys, suffixes=("_before", "_after"))
    assert len(merged) == len(before)
    assert np.allclose(merged["dice_before"], merged["dice_after"])
    assert set(after["volume"]) - set(before["volume"]) == {"knee_e"}
    assert study.plan() == {}


def masks_of(study: Study, volume: str) -> list[Path]:
    found = list((study.folder / "results" / "masks").rglob(f"{volume}_*"))
    assert found
    return found
