"""Data in storage, and jobs on machines that share nothing with the one that plans."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tests.workflow.small_study import REPOSITORY, SAM, Run, Study, new_study, snakemake

from volprompt.identity import read_identity

# Starts a job in a new folder, which has nothing but the job's script, and prints the folder.
SUBMIT = """#!/bin/sh
folder=$(mktemp -d "$(dirname "$0")/jobs/XXXXXX")
cp "$1" "$folder/job.sh"
cd "$folder"
(sh job.sh > log 2>&1; echo $? > code) > /dev/null 2>&1 &
echo "$folder"
"""
STATUS = """#!/bin/sh
if [ ! -f "$1/code" ]; then echo running; elif [ "$(cat "$1/code")" = 0 ]; then echo success; else echo failed; fi
"""
# The storage plugin `fs` copies with rsync. What it asks of it, for machines without.
RSYNC = f"""#!{sys.executable}
import pathlib, shutil, sys
source, target = map(pathlib.Path, sys.argv[-2:])
if source.is_dir():
    shutil.copytree(source, target, dirs_exist_ok=True)
else:
    shutil.copy2(source, target)
"""
TRIGGERS = ("--rerun-triggers", "input", "mtime", "params", "software-env")
SEGMENTED_AGAIN = {"segment": 1, "score": 1, "aggregate": 1, "volume_pages": 1, "report": 1, "all": 1}


class StoredStudy(Study):
    """A study whose folder has the configuration, the sample sheet and the workflow, and storage all else."""

    def run_stored(self, *arguments: str) -> Run:
        """Run or plan it, with jobs in folders of their own."""
        base = self.folder.parent
        storage = ["--default-storage-provider", "fs", "--default-storage-prefix", str(base / "storage")]
        executor = ["--executor", "cluster-generic", "--shared-fs-usage", "none", "--job-deploy-sources"]
        executor += ["--cluster-generic-submit-cmd", f"sh {base}/submit.sh"]
        executor += ["--cluster-generic-status-cmd", f"sh {base}/status.sh"]
        executor += ["--seconds-between-status-checks", "1", "--jobs", "2", "--set-threads", "segment=1"]
        programs = [str(Path(sys.executable).parent), os.environ["PATH"], str(base / "programs")]
        path = os.pathsep.join(programs)
        return snakemake(self.folder, "--configfile", "config.yaml", *executor, *storage, *arguments, PATH=path)

    def plan_stored(self) -> dict[str, int]:
        planned = self.run_stored("--dry-run", *TRIGGERS)
        assert planned.code == 0, planned.text
        return planned.jobs


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    """A study of one volume, one model and one scheme that was not run yet."""
    folder, storage = tmp_path / "study", tmp_path / "storage"
    for part in (folder, storage, tmp_path / "jobs", tmp_path / "programs"):
        part.mkdir()
    (tmp_path / "submit.sh").write_text(SUBMIT)
    (tmp_path / "status.sh").write_text(STATUS)
    rsync = tmp_path / "programs" / "rsync"
    rsync.write_text(RSYNC)
    rsync.chmod(0o755)
    new_study(folder)
    for data in ("volumes", "models"):
        (folder / data).rename(storage / data)
    sheet = folder / "volumes.tsv"
    header, *_, row = sheet.read_text().splitlines()
    assert row.startswith("knee_d")
    sheet.write_text(f"{header}\n{row}\n")
    study = StoredStudy(folder)
    model = {"family": "sam", "architecture": "small_sam.yaml", "checkpoint": "models/small.pth"}
    study.configure(
        models={"small_sam": model},
        experiments={"sam1": {"models": ["small_sam"], "schemes": ["box", "point"]}},
        report={"volumes": "all"},
    )
    # Jobs get what git knows in the study's folder: the workflow, tables and architectures.
    for part in ("rules", "workflow", "envs", "profiles"):
        shutil.copytree(REPOSITORY / part, folder / part, symlinks=True)
    (folder / "config").mkdir()
    for file in (REPOSITORY / "Snakefile", SAM):
        shutil.copy(file, folder)
    shutil.copy(REPOSITORY / "config" / "checkpoints.yaml", folder / "config")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return study


@pytest.mark.slow
def test_a_study_in_storage_on_machines_without_its_data(stored: StoredStudy) -> None:
    storage, jobs = (stored.folder.parent / name for name in ("storage", "jobs"))
    run = stored.run_stored(*TRIGGERS)
    assert run.code == 0, run.text + "".join(path.read_text() for path in jobs.glob("*/log"))
    assert run.jobs == {"convert": 1, "extract_prompts": 1, **SEGMENTED_AGAIN}
    assert "Snakemake's own records (.snakemake) plan" in run.text
    assert [(job / "code").read_text().strip() for job in jobs.iterdir()] == ["0"] * 5
    assert not any((stored.folder / name).exists() for name in ("results", "volumes", "models"))
    results = storage / "results"
    assert pd.read_csv(results / "tables" / "medians.csv")["n"].tolist() == [1, 1]
    # What is told of the sources is what the sheet says, and not where a job found them.
    converted = pd.read_parquet(results / "volumes" / "000" / "volumes.parquet")
    assert converted["source"].tolist() == ["volumes/knee_d_image.nii.gz"]
    page = (results / "report" / "volumes" / "000" / "knee_d.html").read_text()
    assert "itksnap -g volumes/knee_d_image.nii.gz -s results/masks/sam1/small_sam/000/box/knee_d_label-" in page
    assert ".snakemake" not in page
    assert ".snakemake" not in (results / "report" / "index.html").read_text()
    identity = read_identity(results / "masks" / "sam1" / "small_sam" / "000")
    assert identity is not None
    assert identity.settings["checkpoint"].keys() == {"sha256", "content"}

    assert stored.plan_stored() == {}
    schemes = stored.config["schemes"]
    stored.configure(schemes={**schemes, "box": {**schemes["box"], "point": "centroid"}})
    assert stored.plan_stored() == SEGMENTED_AGAIN
    stored.configure(schemes=schemes)
    (storage / "models" / "small.pth").touch()
    assert stored.plan_stored() == SEGMENTED_AGAIN

    # On disk they are what is asked for, by their identities.
    for part in storage.iterdir():
        if part.is_dir():
            shutil.copytree(part, stored.folder / part.name)
    assert stored.plan() == {}

    shutil.rmtree(stored.folder / ".snakemake")
    lost = stored.run_stored("--dry-run", *TRIGGERS)
    assert lost.code != 0
    assert "There are results in storage, and no records of them in .snakemake/metadata" in lost.text
    assert stored.run_stored("--dry-run", "--forceall", *TRIGGERS).jobs.keys() == run.jobs.keys()


def test_what_storage_lacks_and_what_a_profile_does_not_ask_for(stored: StoredStudy) -> None:
    (stored.folder.parent / "storage" / "volumes" / "knee_d_labels.nii.gz").unlink()
    missing = stored.run_stored("--dry-run", *TRIGGERS)
    assert missing.code != 0
    assert "storage/volumes/knee_d_labels.nii.gz" in missing.text.partition("MissingInputException")[2]
    profile = stored.run_stored("--dry-run", "--profile", "profiles/local")
    assert profile.code != 0
    assert "Add --rerun-triggers input mtime params software-env to the command." in profile.text
