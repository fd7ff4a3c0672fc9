"""`volprompt prune`: what the configuration no longer has goes, and nothing else; no job runs again for it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.command_line import volprompt
from tests.workflow.small_study import Study

from volprompt.identity import write_identity

# Runs the command in a study's folder; exit code and what it prints.
Prune = Callable[..., tuple[int, str]]


@pytest.fixture
def prune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prune:
    def run(study: Study, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(study.folder)
        code = volprompt("prune", "--configfile", "config.yaml", *arguments)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def files_of(study: Study) -> dict[str, bytes]:
    """Every file of the results but the lock and the stamps, whose time alone counts."""
    results = study.folder / "results"
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def shrink(study: Study) -> None:
    """Without experiment sam1, without a scheme of sam2, and without knee_d, the only volume of shard 000."""
    config = study.config
    del config["experiments"]["sam1"]
    config["experiments"]["sam2"]["schemes"].remove("point_video")
    study.configure(**config)
    sheet = study.folder / "volumes.tsv"
    sheet.write_text("".join(line for line in sheet.read_text().splitlines(True) if "knee_d" not in line))


def test_what_is_gone_is_removed_and_no_job_runs_again(
    study: Study, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prune(study) == (0, "results: holds nothing that the configuration no longer has\n")
    shrink(study)
    before = files_of(study)
    expected = {path for path in before if re.search(r"/sam1/|/000(\.|_|/|$)|/point_video/", path)}
    code, listed = prune(study)
    assert code == 0, listed
    assert files_of(study) == before
    counts = {name: int(count) for count, name in re.findall(r"(\d+) files?  (.+?)(?::|$)", listed, re.MULTILINE)}
    assert counts.pop("in total") == sum(counts.values()) == len(expected)
    assert list(counts) == ["experiment sam1", "shard 000", "scheme sam2/point_video"]
    assert counts["scheme sam2/point_video"] == 2 * 2  # of knee_a and knee_b, femur and tibia
    kilobytes = sum(len(before[path]) for path in expected) / 1000
    assert f"{kilobytes:.1f} kB  {len(expected):>6} files  in total" in listed
    assert "shard 000: converted volumes, prompts, masks, scores, logs, benchmarks, stamps" in listed
    # The last run had all of it: perhaps a second file behind --configfile was forgotten.
    assert "  - experiment sam1\n  - scheme sam2/point_video\n" in listed
    for answer in ("", "n\n"):  # nobody answers the question, or somebody does
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code, text = prune(study, "--delete")
        assert code == 1
        assert f"Remove {len(expected)} files for good? [y/N]: " in text
        assert text.endswith("Nothing was removed.\n")
        assert "Aborted" not in text
    assert files_of(study) == before

    code, text = prune(study, "--delete", "--yes")
    assert code == 0, text
    after = files_of(study)
    assert before.keys() - after.keys() == expected
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {"masks/sam2/small_sam2/001/identity.json"}
    assert not (study.folder / "results" / "masks" / "sam1").exists()

    run = study.run("--", "tables")
    assert run.code == 0, run.text
    assert run.jobs == {"aggregate": 1}
    assert study.run("--dry-run", "--", "tables").jobs == {}
    config = study.config
    config["experiments"]["sam2"]["schemes"].append("point_video")
    study.configure(**config)
    plan = study.run("--dry-run")
    assert plan.jobs == {"segment": 1, "score": 1, "aggregate": 1, "report": 1, "all": 1}
    assert "masks/sam2/small_sam2/001: the masks of scheme point_video were pruned" in plan.text


def test_what_somebody_else_wrote_stays(study: Study, prune: Prune, tmp_path: Path) -> None:
    """Notes, edited masks, results of which nothing says who wrote them, and whatever a link leads to."""
    shrink(study)
    results = study.folder / "results"
    job = results / "masks" / "sam1" / "small_sam" / "001"
    edited = job / "box" / "knee_a_label-femur_mask.nii.gz"
    edited.write_bytes(edited.read_bytes() + b"corrected by hand")
    kept = [results / "masks" / "notes.txt", job / "notes.txt", edited]
    for note in kept[:2]:
        note.write_text("looked at by a person")
    unknown = results / "masks" / "old" / "model" / "000" / "run.parquet"
    unknown.parent.mkdir(parents=True)
    unknown.touch()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "000").mkdir(parents=True)
    (elsewhere / "000" / "identity.json").write_bytes((job / "identity.json").read_bytes())
    (results / "masks" / "sam1" / "linked").symlink_to(elsewhere)
    page = results / "report" / "volumes" / "001" / "knee_a.html"
    page.parent.mkdir(parents=True)
    page.write_text("a page")
    write_identity(page.parent, {}, {})

    code, text = prune(study, "--delete", "--yes")
    assert code == 0, text
    assert "pages that report.volumes does not ask for: pages of volumes" in text
    assert not page.parent.parent.exists()
    stay = [*kept, unknown]
    assert [path.exists() for path in stay] == [True] * 4
    _, _, others = text.partition("Written by somebody else, or edited since; they stay:\n")
    assert {f"  - {path.relative_to(results)}" for path in stay} == set(others.partition("\n\n")[0].splitlines())
    assert "Links, which are not followed:\n  - masks/sam1/linked\n" in text
    assert (elsewhere / "000" / "identity.json").exists()
    assert sorted(path.name for path in job.rglob("*") if path.is_file()) == [edited.name, "notes.txt"]


def test_a_forgotten_overlay_is_asked_about(study: Study, prune: Prune) -> None:
    (study.folder / "few.tsv").write_text(
        "".join(line for line in (study.folder / "volumes.tsv").read_text().splitlines(True) if "knee_d" not in line)
    )
    study.configure(volumes="few.tsv")
    code, text = prune(study)
    assert code == 0
    assert text.rpartition("a file behind --configfile is missing:\n")[2].startswith("  - shard 000\n")


def test_nothing_goes_where_no_run_can_be_noticed(study: Study, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(study)
    before = files_of(study)
    monkeypatch.setattr("volprompt.command.pruning.lock_results", lambda results: None)
    code, text = prune(study, "--delete", "--yes")
    assert code == 1
    assert "results cannot be locked, so that a run may be going on there; nothing was removed" in text
    assert files_of(study) == before


def test_what_cannot_be_removed_is_listed_and_the_rest_goes(
    study: Study, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(study)
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path.name == "001_slices.parquet":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    code, text = prune(study, "--delete", "--yes")
    assert code == 1
    assert "  - scores/sam1/small_sam/001_slices.parquet (Permission denied)" in text
    assert {path.name for path in (study.folder / "results" / "scores" / "sam1").rglob("*.*")} == {"001_slices.parquet"}


def test_a_volume_of_a_shard_that_stays_is_left_to_the_next_run(study: Study, prune: Prune) -> None:
    sheet = study.folder / "volumes.tsv"
    sheet.write_text("".join(line for line in sheet.read_text().splitlines(True) if "knee_b" not in line))
    code, text = prune(study)
    assert code == 0
    assert text.startswith("results: holds nothing that the configuration no longer has\n")
    assert "makes it again without them:\n  - knee_b (shard 001)\n" in text


def test_while_a_run_is_going_on_nothing_is_removed(study: Study, prune: Prune) -> None:
    shrink(study)
    before = files_of(study)
    program = (
        "from volprompt.study.lock import lock_results; held = lock_results('results'); print(1, flush=True); input()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=study.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "1\n"
    code, text = prune(study, "--delete", "--yes")
    run.communicate("\n")
    assert code == 1
    assert f"is in use by another run (process {run.pid} on " in text
    assert files_of(study) == before


def test_without_results_there_is_one_sentence(study: Study, prune: Prune) -> None:
    study.configure(results="results/other")
    code, text = prune(study, "--delete", "--yes")
    assert (code, text) == (
        1,
        "results/other: there are no results; expected the folder that the configuration names\n",
    )
    assert not (study.folder / "results" / "other").exists()
