"""What a person sees of a run: with volprompt's console for Snakemake, and with Snakemake's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.workflow.small_study import Study, new_study

from volprompt.logs import LASTING


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of one volume, model and scheme, not run yet; its reference holds labels of no structure."""
    study = new_study(tmp_path)
    sheet = (tmp_path / "volumes.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "volumes.tsv").write_text("".join(sheet[:2]))
    study.configure(experiments={"sam1": {"models": ["small_sam"], "schemes": ["point"]}})
    return study


def test_a_run_is_a_line_per_job(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLPROMPT_CONSOLE")
    run = study.run()
    assert run.code == 0, run.text
    # On a busy machine a silent minute gives a line of its own.
    printed = [line for line in run.text.splitlines() if " running; " not in line and not line.endswith(" running")]
    lines = [line[10:] for line in printed if re.match(r"\d\d:\d\d:\d\d  ", line)]
    rules = ("check_headers", "convert", "extract_prompts", "segment", "score", "aggregate", "report", "all")
    told = lines.pop(3)  # once for the study, after the conversion
    labels = ", ".join(f"{label} (in 1 volume)" for label in (2, 4, 5))  # no scheme in use asks for the patella
    assert told == f"Labels of the references that belong to no structure in use and are left out: {labels}"
    assert lines[0] == "8 jobs: " + ", ".join(f"1 {rule}" for rule in rules)
    assert [line[:6] for line in lines[1:9]] == [f"{number} of 8" for number in range(1, 9)]
    assert sum(": 1 volume in " in line for line in lines) == 4
    assert re.search(r"; about \d+ (s|min) left$", lines[5])
    assert re.match(r"Done: 8 jobs in \S+ .*\. Snakemake's own log is \S+$", lines[9])
    page = study.folder / "results" / "report" / "index.html"
    others = [line for line in printed if line[10:] not in (*lines, told)]
    assert others[0].startswith("Using profile")
    assert others[1] == "[check] The headers of the volume have no fault"
    assert others[2].startswith("[all] 1 volume, 1 configuration")
    assert others[2].endswith(f"the report is {page.resolve().as_uri()}")
    assert len(others) == 3, others
    (log,) = (study.folder / ".snakemake" / "log").iterdir()
    assert lines[9].endswith(str(log.relative_to(study.folder)))
    kept = log.read_text()
    assert kept.count("Finished jobid") == 8
    for noise in ("Select jobs", "Building DAG", "Provided cores", "Snakemake version"):
        assert noise in kept
    again = study.run()
    assert again.code == 0
    assert [line.partition(" ")[0] for line in again.text.splitlines()] == ["Using", "Nothing"]


@pytest.mark.parametrize("console", ["volprompt", "plain"])
def test_a_failed_job_is_shown_with_its_log(console: str, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    if console == "volprompt":
        monkeypatch.delenv("VOLPROMPT_CONSOLE")
    config = study.config
    config["models"]["small_sam"]["checkpoint"] = "models/small.pt"  # of a SAM 2
    study.configure(**config)
    run = study.run("--until", "segment", "--retries", "2")
    assert run.code != 0
    log = "results/logs/segment/sam1/small_sam/001.log"
    assert "does not fit sam architecture" in (study.folder / log).read_text()
    _, shown, text = run.text.partition(f"{log} ends with" if console == "volprompt" else f"Logfile {log}:")
    assert shown, run.text
    assert "does not fit sam architecture" in text
    assert "Traceback" not in run.text
    assert text.count(LASTING) == 1, run.text
    assert "Trying to restart" not in run.text
    if console == "volprompt":
        assert "FAILED: Segment sam1/small_sam, shard 001 after " in run.text
        assert run.text.count("does not fit sam architecture") == 1
        assert "Exiting because a job execution failed" not in run.text
        assert re.search(r"Stopped after .*: 3 of 4 jobs are done, 1 failed\.", run.text)
    else:
        assert run.text.count("does not fit sam architecture") == 1
        assert re.search(r"^3 of \d steps \(\d+%\) done$", run.text, re.MULTILINE), run.text
        assert "SNAKEMAKE\n=" not in run.text
        assert "reason:" not in run.text
