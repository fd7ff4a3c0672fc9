"""Faulty input: found before any job where it can be, else recorded, and nothing else is lost."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.conftest import MadeOnce
from tests.workflow.small_study import CONFIGURATION, REPOSITORY, Run, Study, new_study, snakemake, snakemake_command

# A workflow of its own that says with which configuration it goes on, and what jobs are given of it.
EFFECTIVE = """
include: "{snakefile}"
import json
given = [*map(str, workflow.overwrite_configfiles), *workflow.config_settings.config_args]
print("EFFECTIVE", json.dumps([config, given]))
"""


def test_all_faults_of_a_configuration_at_once_and_no_job(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    (tmp_path / "volumes.tsv").open("a").write("knee_a\tvolumes/nowhere.nii.gz\t\n")
    config = study.config
    config["shard"] = 3
    config["experiments"]["sam1"]["schemes"] = ["point", "boxes"]
    config["models"]["small_sam"]["checkpoint"] = "models/gone.pth"
    study.configure(**config)
    run = study.run()
    assert run.code != 0
    for fault in (
        "shard: unknown key; did you mean 'shards'?",
        "there is no scheme 'boxes'; did you mean 'box'?",
        "there is no checkpoint models/gone.pth",
        "volumes.tsv line 5: volume 'knee_a' stands already in line 2",
    ):
        assert fault in run.text
    assert not (tmp_path / "results").exists()


def run_with(study: Study, *arguments: str) -> Run:
    """A dry run in the study's folder with these arguments."""
    profile = ["--profile", str(REPOSITORY / "profiles" / "local"), "--cores", "1", "--dry-run"]
    return snakemake(study.folder, "--snakefile", str(REPOSITORY / "Snakefile"), *profile, *arguments)


def test_what_yaml_hides_is_told_with_file_and_line(tmp_path: Path) -> None:
    """Snakemake reads the files itself, and keeps of two keys the last one without a word."""
    study = new_study(tmp_path)
    text = yaml.safe_dump({key: value for key, value in study.config.items() if key != "report"}, sort_keys=False)
    (tmp_path / "config.yaml").write_text(text + "shards: 010\nreport: {title: 2024-01-31}\n")
    lines = text.count("\n")
    (tmp_path / "over.yaml").write_text("# changes one thing\nmax_failed_fraction: 3\n")
    run = run_with(study, "--configfile", "config.yaml", "over.yaml", "--config", "on_invalid=maybe")
    assert run.code != 0
    assert "Traceback" not in run.text
    for fault in (
        "The configuration has 5 faults:",
        f"- config.yaml line {lines + 1}: shards: is there already in line ",
        f"- config.yaml line {lines + 1}: shards: is written `010`, which YAML reads as 8",
        f"- config.yaml line {lines + 2}: report.title: Input should be a valid string",
        "- over.yaml line 2: max_failed_fraction: Input should be less than or equal to 1",
        "- --config: on_invalid: Input should be 'stop' or 'skip' (found 'maybe')",
    ):
        assert fault in run.text, run.text


def test_repeated_values_leave_the_files_of_the_workflow_itself(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config.yaml").rename(tmp_path / "config" / "config.yaml")  # which the workflow itself names
    (tmp_path / "mine.yaml").write_text("max_failed_fraction: 0.25\n")
    (tmp_path / "Snakefile").write_text(
        f'configfile: "mine.yaml"\n{EFFECTIVE.format(snakefile=REPOSITORY / "Snakefile")}'
    )
    run = snakemake_command(
        study.folder, "--cores", "1", "--dry-run", "--config", "shards=1", "--config", "results=other"
    )
    assert run.code == 0, run.text
    config, _ = json.loads(run.text.partition("EFFECTIVE ")[2].splitlines()[0])
    assert (config["max_failed_fraction"], config["shards"], config["results"]) == (0.25, 1, "other")


def test_files_and_values_are_put_together_as_documented(tmp_path: Path) -> None:
    new_study(tmp_path)
    text = (REPOSITORY / "config" / "README.md").read_text()
    quick = re.search(r"With `config/quick.yaml`\n\n```yaml\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^snakemake (--configfile config/mine.yaml .*)$", text, re.MULTILINE)
    assert quick is not None
    assert len(commands) == 2
    (tmp_path / "config").mkdir()
    (tmp_path / "config.yaml").rename(tmp_path / "config" / "mine.yaml")
    (tmp_path / "config" / "quick.yaml").write_text(quick[1])
    (tmp_path / "Snakefile").write_text(EFFECTIVE.format(snakefile=REPOSITORY / "Snakefile"))
    arguments = [[*shlex.split(command), "--dry-run", "--cores", "1", "--quiet"] for command in commands]
    runs = snakemake(tmp_path, *arguments[0]), snakemake_command(tmp_path, *arguments[1])
    for run in runs:
        assert run.code == 0, run.text
    one, several = (re.search(r"^EFFECTIVE (.*)$", run.text, re.MULTILINE) for run in runs)
    assert one is not None
    assert several is not None
    assert several[1] == one[1]
    settings, for_jobs = json.loads(one[1])
    assert settings == {
        **CONFIGURATION,
        "shards": 1,
        "on_invalid": "skip",
        "report": {**CONFIGURATION["report"], "title": "A closer look"},
        "experiments": {
            "sam1": {**CONFIGURATION["experiments"]["sam1"], "schemes": ["point"]},
            "sam2": CONFIGURATION["experiments"]["sam2"],
        },
    }
    files = [f"{tmp_path}/config/{name}.yaml" for name in ("mine", "quick")]
    assert for_jobs == [*files, *shlex.split(commands[0])[-2:]]


def break_volume(study: Study, volume: str) -> None:
    """Damage an image in the middle, as a broken copy does: neither its header nor its size shows it."""
    image = study.folder / "volumes" / f"{volume}_image.nii.gz"
    content = image.read_bytes()
    image.write_bytes(content[:2000] + bytes(len(content) - 2500) + content[-500:])


@pytest.fixture(scope="module")
def broken(made_once: MadeOnce) -> Study:
    """A study with one image that cannot be read, after its first run."""

    def make(folder: Path) -> None:
        study = new_study(folder)
        config = study.config
        config["experiments"] = {"sam1": {"models": ["small_sam"], "schemes": ["point"]}}
        study.configure(**config)
        break_volume(study, "knee_a")
        run = study.run()
        assert run.code != 0
        assert "3 volumes, 1 configuration: 33.3% of the volume-configuration pairs failed" in run.text
        assert "knee_a_image.nii.gz: the file is damaged or cut off" in run.text

    return Study(made_once("broken", make))


def test_a_failed_volume_takes_nothing_with_it(broken: Study) -> None:
    tables = broken.folder / "results" / "tables"
    scores = pd.read_parquet(tables / "scores.parquet")
    status = scores.groupby("volume")["status"].agg(lambda values: list(set(values)))
    assert status.to_dict() == {"knee_a": ["failed"], "knee_b": ["ok"], "knee_d": ["ok"]}
    failures = pd.read_csv(tables / "failures.csv")
    assert failures[["volume", "stage"]].values.tolist() == [["knee_a", "convert"]]
    assert "Nothing failed" not in (broken.folder / "results" / "report" / "index.html").read_text()
    assert not (broken.folder / "results" / "complete.txt").exists()


def test_a_study_that_failed_stays_failed_until_it_is_mended(broken: Study, tmp_path: Path) -> None:
    study = broken.copy_to(tmp_path)
    again = study.run()
    assert again.code != 0
    assert again.jobs == {"all": 1}
    study.configure(max_failed_fraction=0.4)
    accepted = study.run()
    assert accepted.code == 0, accepted.text
    assert accepted.jobs == {"report": 1, "all": 1}
    study.add_volume("knee_a", seed=1)  # writes the image anew; its second row is taken out again
    sheet = study.folder / "volumes.tsv"
    sheet.write_text("\n".join(dict.fromkeys(sheet.read_text().splitlines())) + "\n")
    mended = study.plan()
    assert mended == {
        "check_headers": 1,
        "convert": 1,
        "extract_prompts": 1,
        "segment": 1,
        "score": 1,
        "aggregate": 1,
        "report": 1,
        "all": 1,
    }


def test_a_volume_fails_for_one_scheme_only(finished: Study, tmp_path: Path) -> None:
    """Where the prompted slice shows no bone, the video scheme fails with the reason and the image scheme goes on."""
    study = finished.copy_to(tmp_path)
    schemes = {"point": CONFIGURATION["schemes"]["point"]}
    schemes["edge_video"] = {"predictor": "video", "slice": {"index": 0}, "point": "centroid"}
    experiments = {"sam2": {"models": ["small_sam2"], "schemes": ["point", "edge_video"]}}
    study.configure(schemes=schemes, experiments=experiments)
    run = study.run("--", "tables")
    assert run.code == 0, run.text
    failures = pd.read_csv(study.folder / "results" / "tables" / "failures.csv")
    assert set(failures["scheme"]) == {"edge_video"}
    assert failures["reason"].str.contains("slice 0 has no point").all()
    medians = pd.read_csv(study.folder / "results" / "tables" / "medians.csv").set_index("scheme")
    assert medians.loc["point", "n"] == 3
    assert medians.loc["edge_video", "n"] == 0
