"""The profiles for workstations and clusters; a real cluster runs in tests/slurm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.workflow.small_study import REPOSITORY, Run, Study, new_study, snakemake


def run(study: Study, profile: str, *arguments: str) -> Run:
    """A run with a profile; it has to succeed."""
    where = ["--profile", profile, "--directory", str(study.folder)]
    done = snakemake(REPOSITORY, *where, "--configfile", str(study.folder / "config.yaml"), *arguments)
    assert done.code == 0, done.text
    return done


def test_jobs_on_a_workstation_lease_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    study = new_study(tmp_path)
    study.configure(experiments={"sam1": {"models": ["small_sam"], "schemes": ["point"]}})
    run(study, "profiles/workstation", "--until", "segment", "--cores", "2")
    logs = [path.read_text() for path in (tmp_path / "results" / "logs" / "segment").rglob("*.log")]
    assert len(logs) == 2
    assert all(re.search("holding GPU [01]$", text, re.MULTILINE) for text in logs), logs
    assert run(study, "profiles/workstation", "--until", "segment", "-n").jobs == {}


def test_a_plan_for_a_cluster_asks_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a login node without GPU
    planned = run(new_study(tmp_path), "slurm", "--dry-run", "--logger", "jobs").planned
    assert [job["resources"].get("gpu") for job in planned if job["rule_name"] == "segment"] == 4 * [1]
    assert not [job for job in planned if job["rule_name"] != "segment" and "gpu" in job["resources"]]
    asked = {(job["rule_name"], job["resources"].get("mem_mb")) for job in planned}
    # Small models on volumes that are not converted yet: torch, work, features, and 256 frames of 512 x 512
    assert {memory for rule, memory in asked if rule == "segment"} == {7100, 9500}
    assert {memory for rule, memory in asked if rule == "convert"} <= {700, 800}
