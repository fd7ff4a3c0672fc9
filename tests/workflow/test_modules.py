"""The workflow as a module of another one: the same jobs, the other one's own targets, the check and the lock."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.workflow.small_study import REPOSITORY, Run, Study, new_study, snakemake

from volprompt.study.lock import lock_results

MODULE = """
configfile: "config/config.yaml"

module volprompt:
    snakefile: {snakefile}
    config: config

use rule * from volprompt {naming}
"""
OWN_RULES = """
rule everything:
    input: "mine.txt"

rule mine:
    input: "results/tables/medians.csv"
    output: "mine.txt"
    shell: "cp {input} {output}"
"""
OWN_START = """
onstart:
    print("the outer start")

"""
HOSTED = 'github("acme/volprompt", path="workflow/Snakefile", branch="main")'
ENTRY, PLAIN = f'"{REPOSITORY}/workflow/Snakefile"', f'"{REPOSITORY}/Snakefile"'
FORMS = {
    "plain": (ENTRY, ""),
    "prefixed": (ENTRY, "as volprompt_*"),
    "not through the catalog's entry": (PLAIN, "as volprompt_*"),
    "hosted": (HOSTED, ""),
}
# Python without an installed volprompt, whatever is installed.
NOT_INSTALLED = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "volprompt" else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which Git takes the working tree as it is, committed in a repository of its own, for acme's."""
    folder = tmp_path_factory.mktemp("host")
    clone = folder / "volprompt"
    for part in ("Snakefile", "rules", "workflow/Snakefile", "workflow/scripts", "config", "envs"):
        (clone / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        copy(REPOSITORY / part, clone / part)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet", "-b", "main"], ["add", "."], [*identity, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    (folder / "gitconfig").write_text(f'[url "{clone.as_uri()}"]\ninsteadOf = https://github.com/acme/volprompt\n')
    return {"GIT_CONFIG_GLOBAL": str(folder / "gitconfig"), "XDG_CACHE_HOME": str(folder / "cache")}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A folder of one's own with one model and one scheme; its configuration is also config/config.yaml."""
    study = new_study(tmp_path_factory.mktemp("user"))
    study.configure(experiments={"sam1": {"models": ["small_sam"], "schemes": ["point"]}})
    (study.folder / "config").mkdir()
    shutil.copy(study.folder / "config.yaml", study.folder / "config" / "config.yaml")
    return study


def run_as_module(study: Study, snakefile: str, *arguments: str, **environment: str) -> Run:
    """Run a Snakefile of this text in the study's folder."""
    (study.folder / "Snakefile").write_text(snakefile)
    library = str(REPOSITORY / "workflow" / "scripts") if HOSTED in snakefile else ""
    profile = ["--profile", str(REPOSITORY / "profiles" / "local"), "--cores", "2"]
    return snakemake(study.folder, *profile, *arguments, **{"PYTHONPATH": library, **environment})


def module(form: str) -> str:
    snakefile, naming = FORMS[form]
    return MODULE.format(snakefile=snakefile, naming=naming)


def planned_rules(run: Run) -> list[str]:
    """The rule of each planned job, as the outer workflow names it."""
    assert run.code == 0, run.text
    return sorted(job["rule_name"] for job in run.planned)


@pytest.mark.parametrize("form", FORMS)
def test_a_module_plans_the_jobs_of_the_workflow(user: Study, host: dict[str, str], form: str) -> None:
    run = run_as_module(user, module(form), "--dry-run", "--logger", "jobs", **host)
    prefix = "volprompt_" if FORMS[form][1] else ""
    once = ["aggregate", "all", "check_headers", "report"]
    twice = 2 * ["convert", "extract_prompts", "score", "segment"]
    assert planned_rules(run) == sorted(prefix + rule for rule in once + twice)


@pytest.mark.parametrize("form", ["prefixed", "not through the catalog's entry"])
def test_rules_before_the_module_stay_the_default_target(user: Study, form: str) -> None:
    run = run_as_module(user, OWN_RULES + module(form), "--dry-run", "--logger", "jobs")
    rules = planned_rules(run)
    assert {"everything", "mine", "volprompt_aggregate"} <= set(rules)
    assert not {"volprompt_all", "volprompt_report"} & set(rules)


def test_a_default_target_behind_the_module_is_kept(user: Study) -> None:
    behind = OWN_RULES.replace("rule everything:", "rule everything:\n    default_target: True")
    run = run_as_module(user, module("prefixed") + behind, "--dry-run", "--logger", "jobs")
    assert "everything" in planned_rules(run)
    assert "volprompt_all" not in planned_rules(run)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("sitecustomize.py", NOT_INSTALLED, "is not installed"),
        ("volprompt/__init__.py", '__version__ = "0.0.1"\n', r"is installed in another version \(.*/volprompt\)"),
    ],
    ids=["missing", "another version"],
)
def test_a_module_without_its_library_says_how_to_install_it(
    file: str, text: str, fault: str, user: Study, host: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    run = run_as_module(user, module("hosted"), "--dry-run", **host, PYTHONPATH=str(tmp_path))
    assert run.code != 0
    install = r"install it with `\S+ -m pip install git\+https://github\.com/acme/volprompt@main`"
    assert re.search(f"its library {fault}; {install}", run.text), run.text


def test_a_module_converts_nothing_where_a_file_is_faulty(user: Study, tmp_path: Path) -> None:
    """Whatever hook the outer workflow has, since the check is a job that conversions wait for."""
    study = user.copy_to(tmp_path)
    (study.folder / "volumes" / "knee_a_image.nii.gz").write_text("not an image")
    snakefile = OWN_RULES + module("prefixed") + OWN_START
    run = run_as_module(study, snakefile)
    assert run.code != 0
    assert "1 fault in 1 of 3 volumes" in run.text
    assert not (study.folder / "results" / "volumes").exists()

    only_good = run_as_module(study, snakefile, "results/volumes/000")
    assert only_good.code == 0, only_good.text
    assert "The headers of the volume have no fault" in only_good.text
    assert [path.name for path in (study.folder / "results" / "volumes").iterdir()] == ["000"]


def test_a_module_locks_its_results(user: Study, tmp_path: Path) -> None:
    """Before the outer workflow's own start, and once, although a rule that is changed reads the module again."""
    study = user.copy_to(tmp_path)
    changed = "use rule convert from volprompt as volprompt_convert with:\n    threads: 1\n"
    snakefile = OWN_START + module("prefixed") + changed
    held = lock_results(study.folder / "results")
    assert held is not None
    run = run_as_module(study, snakefile, "results/volumes/000")
    assert run.code != 0
    assert "results is in use by another run" in run.text
    assert "the outer start" not in run.text
    held.release()
    free = run_as_module(study, snakefile, "results/volumes/000")
    assert free.code == 0, free.text
    assert "the outer start" in free.text


def test_a_section_of_the_outer_configuration_has_its_lines(user: Study, tmp_path: Path) -> None:
    study = user.copy_to(tmp_path)
    inner = "".join(f"  {line}\n" for line in (study.folder / "config.yaml").read_text().splitlines())
    outer = f"mine: {{a: 1, a: 2}}\nknees:\n{inner}  shards: 0\n"
    (study.folder / "config" / "config.yaml").write_text(outer)
    snakefile = module("prefixed").replace("config: config", 'config: config["knees"]')
    run = run_as_module(study, snakefile, "--dry-run")
    assert run.code != 0
    lines = outer.count("\n")
    assert f"- config/config.yaml line {lines}: shards: is there already in line" not in run.text
    assert f"- config/config.yaml line {lines}: knees.shards: is there already in line" in run.text
    assert f"- config/config.yaml line {lines}: shards: Input should be greater than or equal to 1" in run.text
    assert "mine" not in run.text.partition("faults:")[2]


def test_a_checkouts_own_library_is_used(user: Study, tmp_path: Path) -> None:
    """Planning and scripts alike leave an installed package of another version alone."""
    study = user.copy_to(tmp_path)
    (tmp_path / "installed" / "volprompt").mkdir(parents=True)
    (tmp_path / "installed" / "volprompt" / "__init__.py").write_text("raise RuntimeError('another version')\n")
    run = run_as_module(study, module("plain"), "results/volumes/000", PYTHONPATH=str(tmp_path / "installed"))
    assert run.code == 0, run.text


def test_a_hosted_module_runs_through(user: Study, host: dict[str, str], tmp_path: Path) -> None:
    """From the command as people run it, so every job starts its own Python; in one shard, to start few."""
    study = user.copy_to(tmp_path)
    config = study.folder / "config" / "config.yaml"
    config.write_text(yaml.safe_dump({**study.config, "shards": 1}, sort_keys=False))
    run = run_as_module(study, OWN_RULES + module("hosted"), "everything", "all", **host)
    assert run.code == 0, run.text
    assert (study.folder / "mine.txt").read_text() == (study.folder / "results" / "tables" / "medians.csv").read_text()
    assert (study.folder / "results" / "complete.txt").read_text().startswith("3 volumes, 1 configuration, 0.0%")
    # The same study from a checkout: nothing is left to do.
    assert planned_rules(run_as_module(study, module("plain"), "--dry-run", "--logger", "jobs")) == []
