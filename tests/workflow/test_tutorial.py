"""docs/tutorial.md, command by command, on synthetic volumes in the place of the download, with the demo's models."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from tests.unit.command_line import volprompt
from tests.workflow.small_study import REPOSITORY, snakemake

from volprompt.phantom.image import make_phantom

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = TUTORIAL.read_text(encoding="utf-8")
COMMANDS = [line for language, text in BLOCK.findall(TEXT) if language == "bash" for line in text.splitlines()]
(CONFIGURATION,) = [text for language, text in BLOCK.findall(TEXT) if language == "yaml"]
VOLUMES = 6
# Femur and tibia of a phantom stand for the two parts of a hippocampus.
PARTS = {1: 1, 3: 2}


def write_download(folder: Path) -> None:
    """Volumes in the layout of the Decathlon, with the hidden files that macOS left in its archives."""
    for seed in range(VOLUMES):
        phantom = make_phantom(seed, shape=(36, 12, 36), spacing=(3.1, 11.7, 3.9), contrast="dess", noise=5)
        labels = np.select([phantom.labels == label for label in PARTS], list(PARTS.values())).astype(np.uint8)
        for kind, array in (("imagesTr", phantom.image.astype(np.float32)), ("labelsTr", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, phantom.affine), folder / kind / f"hippocampus_{seed:03d}.nii.gz")
            (folder / kind / f"._hippocampus_{seed:03d}.nii.gz").write_bytes(b"Mac OS X")


def with_small_models() -> str:
    config = yaml.safe_load(CONFIGURATION)
    demo = REPOSITORY / "demo"
    (model,) = config["models"].values()
    model |= {"architecture": f"{demo}/sam2_demo.yaml", "checkpoint": f"{demo}/checkpoints/demo_sam2.pt"}
    return yaml.safe_dump({**config, "report": {**config["report"], "print_formats": []}}, sort_keys=False)


def run_line(line: str) -> None:
    """Run a command of the tutorial in the working directory."""
    words = shlex.split(line, comments=True)
    if words[0] == "volprompt":
        assert volprompt(*words[1:]) == 0, line
    elif words[0] == "snakemake":
        run = snakemake(Path.cwd(), *words[1:], "--cores", "2", "--set-threads", "segment=1")
        assert run.code == 0, run.text
    else:
        subprocess.run(line, shell=True, check=True)


def test_the_tutorial_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "hippocampus"
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in COMMANDS:
        if line.startswith(("make ", "source ", "curl ", "echo ")):  # the environment, and the download, are there
            continue
        if line.startswith("tar "):
            write_download(study / "Task04_Hippocampus")
        elif line.startswith("cd "):
            monkeypatch.chdir(Path(line.removeprefix("cd ")).expanduser())
        elif line == "volprompt init ~/hippocampus":
            assert volprompt("init", study) == 0
        elif line == "volprompt check":
            assert len((study / "config" / "twelve.tsv").read_text().splitlines()) == 1 + VOLUMES
            (study / "config" / "config.yaml").write_text(with_small_models())
            run_line(line)
        else:
            run_line(line)
    assert (study / "results" / "report" / "index.html").exists()
    medians = pd.read_csv(study / "results" / "tables" / "medians.csv")
    assert list(medians["scheme"]) == ["point", "box", "box_video"]
    assert medians["combined_low"].notna().all()
    assert medians["combined"].min() > 0.5
    again = snakemake(study, "--profile", "profiles/local", "--dry-run")
    assert (again.code, again.jobs) == (0, {}), again.text
