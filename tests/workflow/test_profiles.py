"""The profiles for workstations and clusters; a real cluster runs in tests/slurm."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.workflow.small_study import REPOSITORY, Study, new_study


def run(study: Study, profile: str, *arguments: str) -> str:
    """What a run with a profile prints; it has to succeed."""
    command = [sys.executable, "-m", "snakemake", "--profile", profile, "--directory", str(study.folder)]
    command += ["--configfile", str(study.folder / "config.yaml"), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


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
    assert "rule segment:" not in run(study, "profiles/workstation", "--until", "segment", "-n")


def test_a_plan_for_a_cluster_asks_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a login node without GPU
    text = run(new_study(tmp_path), "slurm", "--dry-run")
    resources = re.findall(r"^rule segment:.*?resources: ([^\n]*)", text, re.MULTILINE | re.DOTALL)
    assert len(resources) == 4
    assert all("gpu=1" in line.split(", ") for line in resources), resources
    local = re.findall(r"^localrule (\w+):", text, re.MULTILINE)
    assert set(local) <= {"aggregate", "report", "all", "fetch_checkpoint"}
