"""A folder that `volprompt init` writes runs as it is, once its sheet lists volumes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml
from tests.unit.command_line import volprompt
from tests.workflow.small_study import REPOSITORY, snakemake
from tests.workflow.test_modules import host  # noqa: F401

from volprompt.study.study import shard_of

SHARDS = len({shard_of(f"phantom_{seed}", 16) for seed in (100, 101)})
JOBS = {
    **{"convert": SHARDS, "extract_prompts": SHARDS, "segment": 2 * SHARDS, "score": 2 * SHARDS},
    **{"check_headers": 1, "fetch_checkpoint": 2, "aggregate": 1, "report": 1, "all": 1},
}


def new_folder(folder: Path, *options: str) -> Path:
    """A study folder whose sheet lists two small phantoms."""
    assert volprompt("init", folder, *options) == 0
    shape = ("--shape", 12, 48, 48, "--spacing", 9, 2.9, 2.9)
    assert volprompt("phantom", folder / "volumes", "--count", 2, *shape) == 0
    (folder / "config" / "volumes.tsv").write_text((folder / "volumes" / "volumes.tsv").read_text())
    return folder


def planned(folder: Path, profile: str = "local", **environment: str) -> tuple[Counter[str], list[dict]]:
    """Number of planned jobs by rule, and the jobs."""
    run = snakemake(folder, "--profile", f"profiles/{profile}", "--dry-run", "--logger", "jobs", **environment)
    assert run.code == 0, run.text
    return Counter(job["rule_name"] for job in run.planned), run.planned


def test_a_new_folder_is_planned(tmp_path: Path) -> None:
    """As it is, and as a rehearsal, whose models need no download. docs/tutorial.md runs one (test_tutorial.py)."""
    folder = new_folder(tmp_path / "knees")
    assert planned(folder)[0] == JOBS
    files = ("config/config.yaml", "config/rehearsal.yaml")
    run = snakemake(folder, "--cores", "1", "--configfile", *files, "--dry-run", "--logger", "jobs")
    assert run.code == 0, run.text
    rules = Counter(job["rule_name"] for job in run.planned)
    assert rules["segment"] == 2 * rules["convert"] > 0
    assert "fetch_checkpoint" not in rules


def test_a_prefix_names_rules_and_profiles(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "knees", "--prefix", "sam")
    jobs, each = planned(folder, "workstation", CUDA_VISIBLE_DEVICES="")
    assert jobs == {f"sam_{rule}": count for rule, count in JOBS.items()}
    # The profile speaks of the renamed rule: it asks for a GPU although none is seen here.
    assert {job["rule_name"] for job in each if job["resources"].get("gpu")} == {"sam_segment"}


def test_a_published_workflow(tmp_path: Path, host: dict[str, str]) -> None:  # noqa: F811
    folder = new_folder(tmp_path / "knees", "--from", "github.com/acme/volprompt@main")
    assert str(REPOSITORY) not in (folder / "Snakefile").read_text()
    assert planned(folder, **host)[0] == JOBS


def test_another_configuration_replaces_the_folders(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "knees")
    config = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    del config["experiments"]["volumes"], config["schemes"]["box_video"]
    (folder / "config" / "slices.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(folder, "--cores", "1", "--configfile", "config/slices.yaml", "--dry-run", "--logger", "jobs")
    assert run.code == 0, run.text
    assert {job["wildcards"]["model"] for job in run.planned if job["rule_name"] == "segment"} == {"sam_vit_b"}
