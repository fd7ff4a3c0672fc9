"""Headers are checked before the first conversion: faults stop it, or their volumes are skipped."""

from pathlib import Path

import pandas as pd
import pytest
from tests.unit.command_line import volprompt
from tests.workflow.small_study import Study, new_study

from volprompt.study.check import check_volumes


@pytest.fixture
def small(tmp_path: Path) -> Study:
    """One model, one scheme, three volumes."""
    study = new_study(tmp_path)
    study.configure(experiments={"sam1": {"models": ["small_sam"], "schemes": ["point"]}})
    return study


def break_headers(study: Study) -> None:
    """Two faults: an image cut off, and a reference that is another volume's and another grid."""
    volumes = study.folder / "volumes"
    image = volumes / "knee_a_image.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    (volumes / "knee_d_labels.nii.gz").write_text("not an image at all")


def faults_of(study: Study) -> pd.DataFrame:
    return pd.read_csv(study.folder / "results" / "check" / "faults.tsv", sep="\t")


@pytest.mark.parametrize("console", ["volprompt", "plain"])
def test_faults_are_told_once_and_nothing_is_converted(
    console: str, small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    if console == "volprompt":
        monkeypatch.delenv("VOLPROMPT_CONSOLE")
    break_headers(small)
    run = small.run()
    assert run.code != 0
    assert run.text.count("the file is damaged or cut off") == 1
    assert (
        "The files of the sample sheet have 2 faults in 2 of 3 volumes (table: results/check/faults.tsv):" in run.text
    )
    assert "- knee_a: volumes/knee_a_image.nii.gz: the file is damaged or cut off" in run.text
    assert "- knee_d: volumes/knee_d_labels.nii.gz: cannot be read as an image" in run.text
    assert "Traceback" not in run.text
    table = faults_of(small)
    assert list(table.columns) == ["volume", "file", "finding", "expected", "remedy"]
    assert table["volume"].tolist() == ["knee_a", "knee_d"]
    assert table["remedy"][0] == "Copy it again"
    assert not (small.folder / "results" / "volumes").exists()


def test_the_target_check_alone_and_the_command(
    small: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = small.run("--", "check")
    assert whole.code == 0, whole.text
    assert "The headers of 3 volumes have no fault" in whole.text
    assert faults_of(small).empty
    break_headers(small)
    broken = small.run("--", "check")
    assert broken.code != 0
    assert broken.text.count("2 faults in 2 of 3 volumes") == 1
    assert not (small.folder / "results" / "volumes").exists()
    found = faults_of(small)
    assert len(found) == 2

    (small.folder / "results" / "check" / "faults.tsv").unlink()
    monkeypatch.chdir(small.folder)
    assert volprompt("check", "--configfile", "config.yaml") == 1
    assert "2 faults in 2 of 3 volumes" in capsys.readouterr().err
    assert faults_of(small).equals(found)


def test_faulty_and_missing_volumes_are_skipped_where_asked(small: Study) -> None:
    small.configure(on_invalid="skip")
    break_headers(small)
    with (small.folder / "volumes.tsv").open("a") as sheet:
        sheet.write("gone\tvolumes/gone.nii.gz\tvolumes/gone_labels.nii.gz\n")
    run = small.run()
    assert run.code == 0, run.text
    assert "These volumes are skipped (on_invalid: skip)." in run.text
    results = small.folder / "results"
    assert (results / "complete.txt").read_text().startswith("1 volume, 1 configuration, 0.0%")
    assert "3 more skipped as invalid" in (results / "complete.txt").read_text()
    failures = pd.read_csv(results / "tables" / "failures.csv").set_index("volume")
    assert set(failures.index) == {"knee_a", "knee_d", "gone"}
    assert set(failures["stage"]) == {"convert"}
    assert failures.loc["gone", "reason"].startswith("volumes/gone.nii.gz: no such file")
    report = (results / "report" / "index.html").read_text()
    assert "volumes/knee_a_image.nii.gz: the file is damaged or cut off" in report
    assert small.plan() == {}
    small.add_volume("gone", seed=4)  # its second row is taken out again
    sheet = small.folder / "volumes.tsv"
    rows = sheet.read_text().splitlines()
    sheet.write_text("\n".join(row for row in rows if not row.endswith("gone_labels.nii.gz")) + "\n" + rows[-1] + "\n")
    assert small.plan()["convert"] == 1


def test_a_study_without_a_usable_volume_does_not_start(small: Study) -> None:
    small.configure(on_invalid="skip", max_failed_fraction=1)
    for image in (small.folder / "volumes").glob("*_image.nii.gz"):
        image.write_text("not an image")
    run = small.run()
    assert run.code != 0
    assert "3 faults in 3 of 3 volumes" in run.text
    assert "No volume is left to go on with" in run.text
    assert not (small.folder / "results" / "volumes").exists()


def test_only_what_is_to_be_converted_is_checked(finished: Study, tmp_path: Path) -> None:
    study = finished.copy_to(tmp_path)
    study.add_volume("knee_e", seed=5)  # falls into the shard of knee_d
    (study.folder / "volumes" / "knee_e_image.nii.gz").write_text("not an image")
    run = study.run()
    assert run.code != 0
    assert "1 fault in 1 of 2 volumes" in run.text
    assert "Traceback" not in run.text
    study.add_volume("knee_e", seed=5)
    sheet = study.folder / "volumes.tsv"
    sheet.write_text("\n".join(dict.fromkeys(sheet.read_text().splitlines())) + "\n")
    # What stopped has cost nothing: the other shard and its masks are as they were.
    assert study.plan()["convert"] == 1


def test_what_changed_is_converted_where_the_check_is_left_out(study: Study) -> None:
    """The stamp of an earlier check may not say that there is nothing to be converted."""
    image = study.folder / "volumes" / "knee_d_image.nii.gz"
    image.write_bytes((study.folder / "volumes" / "knee_a_image.nii.gz").read_bytes())
    rules = ["convert", "extract_prompts", "segment", "score", "aggregate", "report", "all"]
    run = study.run("--dry-run", "--allowed-rules", *rules)
    assert run.jobs["convert"] == 1


def test_a_check_of_some_volumes_keeps_the_faults_of_the_others(tmp_path: Path) -> None:
    table = tmp_path / "faults.tsv"
    rows = [{"volume": name, "image": str(tmp_path / f"{name}.nii"), "reference": ""} for name in ("=a", "b")]
    check_volumes(rows, "sagittal", None, table)
    for _ in range(2):
        check_volumes(rows[1:], "sagittal", None, table, whole=False)
    assert pd.read_csv(table, sep="\t")["volume"].tolist() == ["'=a", "b"]  # no formula, and no more of these marks
    check_volumes(rows[1:], "sagittal", None, table)
    assert pd.read_csv(table, sep="\t")["volume"].tolist() == ["b"]
