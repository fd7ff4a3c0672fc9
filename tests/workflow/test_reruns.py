"""What runs again after a change: exactly the jobs whose results can differ."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from tests.workflow.small_study import SAM, Study, snakemake

from volprompt.identity import DamagedResult, digest_of_intact
from volprompt.settings.reading import read_settings
from volprompt.study.lock import lock_results
from volprompt.study.study import shard_of

# What is left to do where the tables are made: the report takes longer than all else of a small study.
REST = {"report": 1, "all": 1}
TABLES = {"aggregate": 1, **REST}
ONE_EXPERIMENT = {"segment": 2, "score": 2, **TABLES}
ONE_SHARD = {"check_headers": 1, "convert": 1, "extract_prompts": 1, "segment": 2, "score": 2, **TABLES}
EVERYTHING = {"check_headers": 1, "convert": 2, "extract_prompts": 2, "segment": 4, "score": 4, **TABLES}
ONE_JOB = {"segment": 1, "score": 1, **TABLES}


def test_first_run_makes_everything(finished: Study) -> None:
    results = finished.folder / "results"
    scores = pd.read_parquet(results / "tables" / "scores.parquet")
    assert (scores["status"] == "ok").all()
    # 3 volumes x 6 configurations x (femur, tibia, combined, union, mean)
    assert len(scores) == 3 * 6 * 5
    medians = pd.read_csv(results / "tables" / "medians.csv")
    assert list(medians["model"] + "/" + medians["scheme"]) == [
        "small_sam/point",
        "small_sam/box",
        "small_sam/corrected",
        "small_sam2/point",
        "small_sam2/point_video",
        "small_sam2/three_points_video",
    ]
    assert (medians["n"] == 3).all()
    assert (results / "complete.txt").read_text().startswith("3 volumes, 6 configurations, 0.0%")
    for volume in ("knee_a", "knee_b", "knee_d"):
        masks = list(results.glob(f"masks/*/*/*/*/{volume}_label-*_mask.nii.gz"))
        assert len(masks) == 12
        image = nib.load(finished.folder / "volumes" / f"{volume}_image.nii.gz")
        for path in masks:
            mask = nib.load(path)
            assert mask.shape == image.shape
            assert np.allclose(mask.affine, image.affine)
    assert (results / "report" / "index.html").read_text().count("<img ") == 3
    assert {path.suffix for path in (results / "report" / "figures").iterdir()} >= {".svg"}


def test_nothing_changed(study: Study) -> None:
    """With all of Snakemake's own triggers, too, as in a module without our profile."""
    assert study.plan() == {}
    workflow = ["--snakefile", str(study.workflow / "Snakefile"), "--configfile", "config.yaml"]
    assert "Nothing to be done" in snakemake(study.folder, *workflow, "--cores", "1", "--dry-run").text


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
    assert study.plan() == ONE_EXPERIMENT


def test_new_model_adds_its_own_jobs(study: Study) -> None:
    study.add_checkpoint("models/other.pth", seed=6)
    config = study.config
    config["models"]["other_sam"] = {"family": "sam", "architecture": str(SAM), "checkpoint": "models/other.pth"}
    config["experiments"]["sam1"]["models"].append("other_sam")
    study.configure(**config)
    assert study.plan() == ONE_EXPERIMENT


def test_new_scheme_in_a_new_experiment_adds_its_own_jobs(study: Study) -> None:
    config = study.config
    config["schemes"]["interior"] = {"predictor": "image", "point": "interior"}
    config["experiments"]["more"] = {"models": ["small_sam"], "schemes": ["interior"]}
    study.configure(**config)
    assert study.plan() == ONE_EXPERIMENT


def test_changed_scheme_reruns_its_experiments(study: Study) -> None:
    config = study.config
    config["schemes"]["box"]["point"] = "centroid"  # part of experiment sam1 only
    study.configure(**config)
    assert study.plan() == ONE_EXPERIMENT


def test_repetitions_of_noise_are_schemes_of_their_own(study: Study) -> None:
    config = study.config
    noise = {"points_mm": 3, "repetitions": 3}
    config["schemes"]["noisy"] = {"predictor": "image", "point": "centroid", "noise": noise}
    config["experiments"]["noise"] = {"models": ["small_sam"], "schemes": ["noisy"]}
    study.configure(**config)
    assert study.plan() == ONE_EXPERIMENT


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
    del config["experiments"]["sam2"]  # has nothing to do with it
    study.add_checkpoint("training/step_100.pth", seed=11)
    study.configure(**config)
    one_model = ONE_EXPERIMENT
    assert study.plan() == one_model
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert study.plan() == REST
    masks = study.folder / "results" / "masks" / "training"
    first = {path: path.stat().st_mtime_ns for path in masks.rglob("*.nii.gz")}
    assert len(first) == 3 * 2

    study.add_checkpoint("training/other.pth", seed=12)
    (study.folder / "training" / "step_200.safetensors").write_bytes(
        safetensors.torch.save(torch.load(study.folder / "training" / "other.pth", weights_only=True))
    )
    (study.folder / "training" / "other.pth").unlink()
    assert study.plan() == one_model
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert {path.name for path in masks.iterdir()} == {"tuned_step_100", "tuned_step_200"}
    assert study.plan() == REST
    medians = pd.read_csv(study.folder / "results" / "tables" / "medians.csv")
    assert list(medians["model"])[-2:] == ["tuned_step_100", "tuned_step_200"]

    study.add_checkpoint("training/step_100.pth", seed=13)
    plan = study.run("--dry-run", "--logger", "jobs")
    assert plan.jobs == one_model
    assert {job["wildcards"].get("model", "tuned_step_100") for job in plan.planned} == {"tuned_step_100"}


def test_changed_report_setting_reruns_the_report(study: Study) -> None:
    study.configure(report={"title": "Another title"})
    assert study.plan() == {"report": 1, "all": 1}


def test_pages_of_volumes_are_made_shard_by_shard(study: Study) -> None:
    study.configure(report={"volumes": "all"})
    assert study.plan() == {"volume_pages": 2, **REST}
    run = study.run()
    assert run.code == 0, run.text
    pages = study.folder / "results" / "report" / "volumes"
    assert {path.name for path in pages.glob("*/*.html")} == {"knee_a.html", "knee_b.html", "knee_d.html"}
    text = (pages.parent / "index.html").read_text()
    linked = json.loads(re.search(r'id="pages-data">(.*?)</script>', text, re.DOTALL)[1])
    assert {pages.parent / path for path in linked.values()} == set(pages.glob("*/*.html"))
    assert study.plan() == {}
    next(pages.glob("*/knee_a.html")).unlink()
    assert study.plan() == {"volume_pages": 1, "all": 1}
    rename_data_folder(study)
    assert study.plan() == {"volume_pages": 2, **REST}
    study.configure(report={"volumes": "chosen"})
    assert study.plan() == REST


def test_smaller_batches_rerun_no_segmentation(study: Study) -> None:
    study.configure(inference={"device": "cpu", "batch_size": 1, "objects_together": 2})
    assert study.plan() == {}
    run = study.run("--forcerun", "results/masks/sam1/small_sam/000", "--until", "segment")
    assert run.code == 0, run.text
    log = study.folder / "results" / "logs" / "segment" / "sam1" / "small_sam" / "000.log"
    assert "Slices encoded together: 1; objects tracked together: 2" in log.read_text()


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
    assert study.plan() == ONE_SHARD
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    after = pd.read_parquet(study.folder / "results" / "tables" / "scores.parquet")
    keys = ["model", "scheme", "volume", "structure"]
    merged = before.merge(after, on=keys, suffixes=("_before", "_after"))
    assert len(merged) == len(before)
    assert np.allclose(merged["dice_before"], merged["dice_after"])
    assert set(after["volume"]) - set(before["volume"]) == {"knee_e"}
    assert study.plan() == REST


def touch_sources(study: Study) -> None:
    later = time.time() + 10
    for name in ("volumes.tsv", "volumes/knee_a_image.nii.gz", "volumes/knee_a_labels.nii.gz", "models/small.pth"):
        os.utime(study.folder / name, (later, later))


def write_defaults_out(study: Study) -> None:
    study.configure(inference={"device": "cpu", "precision": "auto", "fill_holes": 0}, max_failed_fraction=0.0)


def delete_records(study: Study) -> None:
    shutil.rmtree(study.folder / ".snakemake")


def move_results(study: Study) -> None:
    (study.folder / "elsewhere").mkdir()
    (study.folder / "results").rename(study.folder / "elsewhere" / "done")
    study.configure(results="elsewhere/done")


def spell_results_otherwise(study: Study) -> None:
    study.configure(results="./results/")


def give_results_as_absolute_path(study: Study) -> None:
    study.configure(results=str(study.folder / "results"))


def swap_rows(study: Study) -> None:
    head, *rows = (study.folder / "volumes.tsv").read_text().splitlines()
    (study.folder / "volumes.tsv").write_text("\n".join([head, *reversed(rows)]) + "\n")


def reverse_sections(study: Study) -> None:
    config = study.config
    for section in ("structures", "schemes", "models"):
        config[section] = dict(reversed(config[section].items()))
    study.configure(**config)


def reverse_schemes_of_an_experiment(study: Study) -> None:
    config = study.config
    config["experiments"]["sam2"]["schemes"].reverse()
    study.configure(**config)


def rename_data_folder(study: Study) -> None:
    (study.folder / "volumes").rename(study.folder / "data")
    sheet = (study.folder / "volumes.tsv").read_text()
    (study.folder / "volumes.tsv").write_text(sheet.replace("volumes/", f"{study.folder}/data/"))


def move_checkpoints(study: Study) -> None:
    (study.folder / "models").rename(study.folder / "weights")
    config = study.config
    for model in config["models"].values():
        model["checkpoint"] = model["checkpoint"].replace("models/", "weights/")
    study.configure(**config)


def exchange_for_an_older_file(study: Study, name: str) -> None:
    """Other bytes of the same size, dated back as `cp -p` does: the time in gzip's header is another one."""
    path = study.folder / name
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:4] + bytes([content[4] ^ 1]) + content[5:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def exchange_image(study: Study) -> None:
    exchange_for_an_older_file(study, "volumes/knee_d_image.nii.gz")


def exchange_reference(study: Study) -> None:
    exchange_for_an_older_file(study, "volumes/knee_d_labels.nii.gz")


def change_tensors_without_records(study: Study) -> None:
    delete_records(study)
    study.add_checkpoint("models/small.pt", seed=5)


def change_scheme_without_records(study: Study) -> None:
    delete_records(study)
    config = study.config
    config["schemes"]["box"]["point"] = "centroid"
    study.configure(**config)


def fill_holes(study: Study) -> None:
    study.configure(inference={"device": "cpu", "fill_holes": 8})


def video_resize(study: Study) -> None:
    study.configure(inference={"device": "cpu", "video_resize": "bicubic"})


def reset_between_directions(study: Study) -> None:
    study.configure(inference={"device": "cpu", "reset_between_directions": True})


def precision(study: Study) -> None:
    study.configure(inference={"device": "cpu", "precision": "bfloat16"})


def remove_scheme(study: Study) -> None:
    config = study.config
    config["experiments"]["sam2"]["schemes"].remove("point_video")
    study.configure(**config)


def remove_last_scheme_with_the_patella(study: Study) -> None:
    config = study.config
    config["experiments"]["sam2"]["schemes"].remove("three_points_video")
    study.configure(**config)


def add_scheme(study: Study) -> None:
    config = study.config
    config["schemes"]["interior"] = {"predictor": "image", "point": "interior"}
    config["experiments"]["sam1"]["schemes"].append("interior")
    study.configure(**config)


def change_labels_that_no_scheme_asks_for(study: Study) -> None:
    remove_last_scheme_with_the_patella(study)
    config = study.config
    config["structures"]["patella"]["labels"] = [6]
    study.configure(**config)


def remove_structure_with_negative_points(study: Study) -> None:
    """`negatives: others` takes points on every structure, so the masks of the others were made with more of them."""
    config = study.config
    del config["structures"]["patella"]
    study.configure(**config)


def move_into_the_future(study: Study) -> None:
    """As from an archive of another time zone, or before a clock was set back."""
    later = time.time() + 86_400
    for path in [study.folder / "results", *(study.folder / "results").rglob("*")]:
        os.utime(path, (later, later))


def tolerance_after_a_copy_from_the_future(study: Study) -> None:
    move_into_the_future(study)
    tolerance(study)


def mask_missing_in_a_copy_from_the_future(study: Study) -> None:
    delete_mask(study)
    move_into_the_future(study)


def device_auto(study: Study) -> None:
    study.configure(inference={"device": "auto"})


def tolerance(study: Study) -> None:
    study.configure(scores={"surface_tolerance_mm": 2.0})


def tolerance_for_each_structure(study: Study) -> None:
    """The one that was, in another spelling."""
    study.configure(scores={"surface_tolerance_mm": {"tibia": 1, "femur": 1.0}})


def ignore_the_border(study: Study) -> None:
    study.configure(scores={"border": "ignore"})


def ignore_a_label(study: Study) -> None:
    study.configure(ignore={"labels": [99]})


def grey_window(study: Study) -> None:
    study.configure(frames={**study.config.get("frames", {}), "window": [0, 1000]})


def allowed_failures(study: Study) -> None:
    study.configure(max_failed_fraction=0.5)


def first_file(study: Study, pattern: str) -> Path:
    return min((study.folder / "results").glob(pattern))


def delete_mask(study: Study) -> None:
    first_file(study, "masks/sam1/*/*/*/*_mask.nii.gz").unlink()


def zero_mask(study: Study) -> None:
    path = first_file(study, "masks/sam1/*/*/*/*_mask.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine, image.header), path)


def delete_run_table(study: Study) -> None:
    first_file(study, "masks/sam1/*/*/run.parquet").unlink()


def delete_identity(study: Study) -> None:
    first_file(study, "masks/sam1/*/*/identity.json").unlink()


def damage_scores(study: Study) -> None:
    first_file(study, "scores/sam1/*/000.parquet").write_bytes(b"PAR1 and no table")


def damage_volume_table(study: Study) -> None:
    first_file(study, "volumes/000/volumes.parquet").write_bytes(b"PAR1 and no table")


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (touch_sources, {}),
        (write_defaults_out, {}),
        (delete_records, {}),
        (move_results, {}),
        (spell_results_otherwise, {}),
        (give_results_as_absolute_path, {}),
        (swap_rows, {}),
        (reverse_sections, TABLES),
        (reverse_schemes_of_an_experiment, TABLES),
        (rename_data_folder, REST),  # which shows where the data are
        (move_checkpoints, {}),
        (exchange_image, ONE_SHARD),
        (exchange_reference, ONE_SHARD),
        (change_tensors_without_records, ONE_EXPERIMENT),
        (change_scheme_without_records, ONE_EXPERIMENT),
        (fill_holes, ONE_EXPERIMENT),
        (video_resize, ONE_EXPERIMENT),
        (reset_between_directions, ONE_EXPERIMENT),
        (precision, {"segment": 4, "score": 4, **TABLES}),
        (remove_scheme, TABLES),
        (remove_last_scheme_with_the_patella, TABLES),
        (add_scheme, ONE_EXPERIMENT),
        (change_labels_that_no_scheme_asks_for, TABLES),
        (remove_structure_with_negative_points, ONE_EXPERIMENT),
        (tolerance_after_a_copy_from_the_future, {"score": 4, **TABLES}),
        (mask_missing_in_a_copy_from_the_future, ONE_JOB),
        (device_auto, {}),
        (tolerance, {"score": 4, **TABLES}),
        (tolerance_for_each_structure, {}),
        (ignore_the_border, {"score": 4, **TABLES}),
        (ignore_a_label, EVERYTHING),
        (grey_window, EVERYTHING),
        (allowed_failures, {"report": 1, "all": 1}),
        (delete_mask, ONE_JOB),
        (zero_mask, ONE_JOB),
        (delete_run_table, ONE_JOB),
        (delete_identity, ONE_JOB),
        (damage_scores, {"score": 1, **TABLES}),
        (damage_volume_table, ONE_SHARD),
    ],
)
def test_a_change_costs_the_jobs_whose_results_it_reaches(
    study: Study, change: Callable[[Study], None], jobs: dict[str, int]
) -> None:
    change(study)
    assert study.plan() == jobs


def test_a_setting_that_is_taken_back_costs_nothing(study: Study) -> None:
    study.configure(scores={"surface_tolerance_mm": 2.0})
    assert study.plan()["score"] == 4
    study.configure(scores={"surface_tolerance_mm": 1.0})
    assert study.plan() == {}


def test_a_plan_says_what_is_made_again_and_why(study: Study) -> None:
    tolerance(study)
    delete_mask(study)
    text = study.run("--dry-run").text
    assert "scores.surface_tolerance_mm: 1.0, now 2.0" in text
    assert "_mask.nii.gz is missing" in text


def test_what_was_made_again_is_made_once(study: Study) -> None:
    """After the changed jobs have run nothing is left to do, and removed schemes are in no table.

    The results are dated to the next day, like a copy from another time zone: no job may end as older than its inputs.
    """
    remove_scheme(study)
    zero_mask(study)
    tomorrow = time.time() + 86_400
    for path in (study.folder / "results").rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    assert study.plan() == ONE_JOB
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert study.plan() == REST
    for table in ("scores.parquet", "medians.parquet"):
        assert "point_video" not in set(pd.read_parquet(study.folder / "results" / "tables" / table)["scheme"])


def test_inputs_from_the_future_are_refused_before_any_job(study: Study) -> None:
    """Those of jobs to be run: Snakemake would fail the jobs once their work is done."""
    study.add_volume("knee_c", seed=4)
    tomorrow = time.time() + 86_400
    new = [f"volumes/knee_c_{kind}.nii.gz" for kind in ("image", "labels")]
    for name in (*new, "volumes/knee_a_image.nii.gz", "volumes/knee_d_image.nii.gz", "models/small.pt"):
        os.utime(study.folder / name, (tomorrow, tomorrow))
    refused = study.run("--dry-run")
    assert refused.code != 0
    listed = re.findall(r"^  - (\S+): \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", refused.text, re.MULTILINE)
    of_its_shard = "knee_d" if shard_of("knee_c", 2) == shard_of("knee_d", 2) else "knee_a"
    assert listed == [f"volumes/{of_its_shard}_image.nii.gz", *new, "models/small.pt"]
    for name in listed:
        (study.folder / name).touch()
    assert study.plan() == ONE_SHARD


@pytest.mark.parametrize("keep_records", [True, False])
def test_without_a_profile_no_job_is_left_out(study: Study, keep_records: bool) -> None:
    if not keep_records:
        delete_records(study)
    (first_file(study, "masks/sam1/*/*/run.parquet")).unlink()
    workflow = ["--snakefile", str(study.workflow / "Snakefile"), "--configfile", "config.yaml"]
    run = snakemake(study.folder, *workflow, "--cores", "2", "--dry-run")
    assert run.code == 0, run.text
    assert {rule: run.jobs.get(rule, 0) >= count for rule, count in ONE_JOB.items()} == dict.fromkeys(ONE_JOB, True)


def test_a_second_run_on_the_same_results_is_refused(study: Study, tmp_path: Path) -> None:
    """From another working folder, where Snakemake's own lock does not see the first one. Planning is free."""
    study.configure(report={"title": "Another title"})
    held = lock_results(study.folder / "results")
    assert held is not None
    assert study.plan() == {"report": 1, "all": 1}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("volumes", "models", "volumes.tsv", "config.yaml"):
        (elsewhere / name).symlink_to(study.folder / name)
    (elsewhere / "results").symlink_to(study.folder / "results")
    run = Study(elsewhere).run()
    assert run.code != 0
    assert f"results is in use by another run (process {os.getpid()} on " in run.text
    assert "Traceback" not in run.text
    held.release()
    assert study.plan() == {"report": 1, "all": 1}


def test_an_edited_mask_is_not_scored(study: Study) -> None:
    """Between planning and scoring, so that only the job itself can see it."""
    zero_mask(study)
    shard = first_file(study, "masks/sam1/*/000").relative_to(study.folder)
    with pytest.raises(DamagedResult, match=r"_mask\.nii\.gz was edited"):
        digest_of_intact(study.folder / shard)


def test_the_effective_configuration_can_be_run_again(study: Study) -> None:
    written = yaml.safe_load((study.folder / "results" / "config.yaml").read_text())
    assert read_settings(written) == read_settings(study.config)
    (study.folder / "config.yaml").write_text(yaml.safe_dump(written))
    assert study.plan() == {}


def masks_of(study: Study, volume: str) -> list[Path]:
    found = list((study.folder / "results" / "masks").rglob(f"{volume}_*"))
    assert found
    return found
