"""A small study in a folder of its own, and runs of the real workflow on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tests.workflow.warm_snakemake import run_snakemake

from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.phantom.image import make_phantom
from volprompt.phantom.study import write_phantom

REPOSITORY = Path(__file__).parents[2]
SAM, SAM2 = REPOSITORY / "tests" / "small_sam.yaml", REPOSITORY / "tests" / "small_sam2.yaml"
PLUGINS = Path(__file__).parent / "plugins"
STAGES = (
    "check_headers",
    "convert",
    "extract_prompts",
    "fetch_checkpoint",
    "segment",
    "score",
    "aggregate",
    "report",
    "volume_pages",
    "all",
)


@dataclass
class Run:
    """What a run of the workflow printed and planned."""

    code: int
    text: str

    @property
    def jobs(self) -> dict[str, int]:
        """Planned jobs by rule, without the total; empty where nothing is to be done."""
        table = self.text.rpartition("Job stats:")[2].partition("total")[0]
        found = Counter({rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)})
        return {stage: found[stage] for stage in STAGES if found[stage]}

    @property
    def planned(self) -> list[dict[str, Any]]:
        """Rule, message, wildcards, input and resources of each job of a dry run with `--logger jobs`."""
        return [json.loads(line.removeprefix("JOB ")) for line in self.text.splitlines() if line.startswith("JOB ")]


def snakemake(folder: Path, *arguments: str, **environment: str) -> Run:
    """Run Snakemake in a folder, with further variables in its environment: forked, or from the command where one of
    them is Python's own."""
    if environment.get("PYTHONPATH"):
        return snakemake_command(folder, *arguments, **environment)
    return Run(*run_snakemake(folder, arguments, with_plugins(environment)))


def snakemake_command(folder: Path, *arguments: str, **environment: str) -> Run:
    """Run Snakemake in a folder as people do, from the command."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    surroundings = with_plugins(environment)
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    return Run(done.returncode, done.stdout + done.stderr)


def with_plugins(environment: dict[str, str]) -> dict[str, str]:
    """The environment with these variables, in which Snakemake finds the tests' plugins."""
    paths = [environment.get("PYTHONPATH", ""), str(PLUGINS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@dataclass
class Study:
    """A folder with a configuration, volumes and checkpoints."""

    folder: Path
    workflow: Path = REPOSITORY

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    def configure(self, **changes: Any) -> None:
        """Replace top-level keys of the configuration."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**self.config, **changes}, sort_keys=False))

    def run(self, *arguments: str) -> Run:
        """Run the workflow in the study's folder with the local profile."""
        profile = ["--profile", str(REPOSITORY / "profiles" / "local"), "--cores", "2"]
        # Two small models side by side are faster than one after the other on two threads.
        workflow = ["--snakefile", str(self.workflow / "Snakefile"), "--set-threads", "segment=1"]
        return snakemake(self.folder, *workflow, "--configfile", "config.yaml", *profile, *arguments)

    def plan(self) -> dict[str, int]:
        """Jobs that a run would do."""
        planned = self.run("--dry-run")
        assert planned.code == 0, planned.text
        return planned.jobs

    def copy_to(self, folder: Path) -> Study:
        """The same study, its results and what Snakemake knows of them, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Study(folder, self.workflow)

    def add_volume(self, name: str, seed: int) -> None:
        """Add a small phantom to the study."""
        phantom = make_phantom(seed, shape=(12, 48, 48), spacing=(9.0, 2.9, 2.9), contrast="dess", noise=5)
        image, labels = (f"volumes/{name}_{kind}.nii.gz" for kind in ("image", "labels"))
        write_phantom(phantom, self.folder / image, self.folder / labels, orientation="LPS")
        with (self.folder / "volumes.tsv").open("a") as sheet:
            sheet.write(f"{name}\t{image}\t{labels}\n")

    def add_checkpoint(self, path: str, seed: int) -> None:
        """Write a checkpoint of a small model with random weights: SAM for .pth, SAM 2 for .pt."""
        torch.manual_seed(seed)
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        torch.save(SamModel.build(str(SAM)).state_dict() if file.suffix == ".pth" else sam2_with_objects(), file)


def sam2_with_objects() -> dict[str, Any]:
    """A random SAM 2 that finds an object on every slice, so that video masks are not empty."""
    module = Sam2Model.build(str(SAM2))
    with torch.no_grad():
        module.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").fill_(3.0)
    return {"model": module.state_dict()}


# zlib.crc32 of the names modulo 2: knee_d falls into shard 000, knee_a and knee_b into shard 001.
VOLUMES = {"knee_a": 1, "knee_b": 2, "knee_d": 3}

CONFIGURATION: dict[str, Any] = {
    "results": "results",
    "volumes": "volumes.tsv",
    "shards": 2,
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}, "patella": {"labels": [5], "scored": False}},
    "schemes": {
        "point": {"predictor": "image", "point": "centroid"},
        "box": {"predictor": "image", "box": True},
        "corrected": {"predictor": "image", "box": True, "corrections": {"clicks": 1}},
        "point_video": {"predictor": "video", "slice": "nearest", "point": ["click", "centroid"]},
        "three_points_video": {
            "predictor": "video",
            "slice": "nearest",
            "point": ["click", "centroid"],
            "negatives": "others",
        },
    },
    "models": {
        "small_sam": {"family": "sam", "architecture": str(SAM), "checkpoint": "models/small.pth"},
        "small_sam2": {"family": "sam2", "architecture": str(SAM2), "checkpoint": "models/small.pt"},
    },
    "experiments": {
        "sam1": {"models": ["small_sam"], "schemes": ["point", "box", "corrected"]},
        "sam2": {"models": ["small_sam2"], "schemes": ["point", "point_video", "three_points_video"]},
    },
    "inference": {"device": "cpu"},
    "report": {"print_formats": []},
}


def new_study(folder: Path, workflow: Path = REPOSITORY) -> Study:
    """A study that has not been run yet."""
    study = Study(folder, workflow)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    (folder / "volumes.tsv").write_text("volume\timage\treference\n")
    (folder / "volumes").mkdir()
    for name, seed in VOLUMES.items():
        study.add_volume(name, seed)
    study.add_checkpoint("models/small.pth", seed=1)
    study.add_checkpoint("models/small.pt", seed=2)
    return study
