"""The paper's whole study, planned and not run."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from tests.workflow.small_study import REPOSITORY, Study, snakemake

from volprompt.phantom.study import write_study


def paper_study(folder: Path, volumes: int) -> Study:
    """The shipped configuration over a generated sheet; the images are empty files, which planning does not open."""
    (folder / "images").mkdir()
    rows, clicks = ["volume\timage\treference"], ["volume,structure,slice,x,y"]
    for number in range(volumes):
        name = f"oai_{9_000_000 + 37 * number}"
        image, reference = f"images/{name}.nii.gz", f"images/{name}_mask.nii.gz"
        (folder / image).touch()
        (folder / reference).touch()
        rows.append(f"{name}\t{image}\t{reference}")
        clicks += [f"{name},{structure},80,150,120" for structure in ("femur", "tibia", "patella")]
    (folder / "config").mkdir()
    (folder / "config" / "volumes.tsv").write_text("\n".join(rows) + "\n")
    (folder / "config" / "clicks.csv").write_text("\n".join(clicks) + "\n")
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Study(folder)


@pytest.mark.parametrize("entry", ["Snakefile", "workflow/Snakefile"])
def test_jobs_of_the_papers_study(tmp_path: Path, entry: str) -> None:
    study = paper_study(tmp_path, volumes=488)
    study.workflow = (REPOSITORY / entry).parent
    # 3 SAM and 4 SAM 2 models on 16 shards each
    assert study.plan() == {
        "check_headers": 1,
        "convert": 16,
        "extract_prompts": 16,
        "fetch_checkpoint": 7,
        "segment": 7 * 16,
        "score": 7 * 16,
        "aggregate": 1,
        "report": 1,
        "all": 1,
    }


def test_gpu_is_asked_for_by_segment_alone(tmp_path: Path) -> None:
    study = paper_study(tmp_path, volumes=20)
    config = study.config
    config["inference"]["device"] = "cuda"
    study.configure(**config)
    planned = study.run("--dry-run", "--logger", "jobs").planned
    assert {job["rule_name"] for job in planned if job["resources"].get("gpu")} == {"segment"}


def test_targets_by_name_end_after_their_stage(tmp_path: Path) -> None:
    study = paper_study(tmp_path, volumes=3)
    stages = {
        "prompts": {"check_headers", "convert", "extract_prompts"},
        "masks": {"fetch_checkpoint", "segment"},
        "scores": {"score"},
        "tables": {"aggregate"},
    }
    expected: set[str] = set()
    for target, added in stages.items():
        expected |= added
        planned = study.run("--dry-run", "--logger", "jobs", "--", target).planned
        assert {job["rule_name"] for job in planned} == {*expected, target}


def test_each_rule_says_what_it_does(tmp_path: Path) -> None:
    """In `snakemake --list` by its docstring, and in the console by a message that replaces the lists of files."""
    study = paper_study(tmp_path, volumes=3)
    listed = dict(re.findall(r"^(\w+)(?: \((.*)\))?$", study.run("--list").text, re.MULTILINE))
    assert {"all", "check", "convert", "segment", "report", "masks"} <= set(listed)
    assert [rule for rule, docstring in listed.items() if not docstring] == []

    planned = study.run("--dry-run", "--logger", "jobs").planned
    assert {job["rule_name"] for job in planned} <= set(listed)
    for job in planned:
        assert job["rule_msg"], job["rule_name"]
        assert all(value in job["rule_msg"] for value in job["wildcards"].values()), job["rule_msg"]


@pytest.mark.parametrize("arguments", [(), ("--profile", "profiles/local")], ids=["bare", "profile"])
def test_a_fresh_clone_plans_the_whole_demo(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Its checkpoints are there and no record of Snakemake's is: no job may be left out for that."""
    for part in ("rules", "workflow", "envs", "config", "profiles", "demo/checkpoints"):
        shutil.copytree(REPOSITORY / part, tmp_path / part)
    for architecture in (REPOSITORY / "demo").glob("*.yaml"):
        shutil.copy(architecture, tmp_path / "demo")
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    write_study(tmp_path / "demo" / "volumes", range(100, 104), (12, 48, 48), (9.0, 2.9, 2.9), "dess")
    sheet = tmp_path / "demo" / "volumes" / "volumes.tsv"
    sheet.write_text(sheet.read_text().replace(f"{tmp_path}/", ""))
    run = snakemake(tmp_path, "--cores", "2", "--configfile", "config/demo.yaml", "--dry-run", *arguments)
    assert run.code == 0, run.text
    shards = {"check_headers": 1, "convert": 3, "extract_prompts": 3, "segment": 6, "score": 6}
    assert run.jobs == {**shards, "aggregate": 1, "report": 1, "all": 1}


def test_the_rule_graph_is_drawn_as_the_catalog_asks_for_it(tmp_path: Path) -> None:
    """`make rulegraph` has drawn the same rules and edges, and what the catalog reads is there."""
    shutil.copytree(REPOSITORY / ".test" / "config", tmp_path / "config")
    graph = ["-s", str(REPOSITORY / "workflow" / "Snakefile"), "-c", "1", "-d", str(tmp_path)]
    run = snakemake(tmp_path, *graph, "--forceall", "--rulegraph")
    assert run.code == 0, run.text
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', run.text))
    edges = {(names[first], names[second]) for first, second in re.findall(r"(\d+) -> (\d+)", run.text)}
    assert ("check_headers", "convert") in edges

    drawn = (REPOSITORY / "docs" / "rulegraph.svg").read_text()
    titles = dict(re.findall(r"<title>(\d+)</title>.*?<text[^>]*>(\w+)</text>", drawn, re.DOTALL))
    arrows = re.findall(r"<title>(\d+)&#45;&gt;(\d+)</title>", drawn)
    assert set(titles.values()) == set(names.values())
    assert {(titles[first], titles[second]) for first, second in arrows} == edges

    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
