"""`volprompt verify` on a finished study: it holds, and whatever is altered is found."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.unit.command_line import volprompt
from tests.workflow.small_study import Study

from volprompt.files import table_metadata, write_table
from volprompt.identity import read_identity, write_identity

# Runs the command in a study's folder; exit code and what it prints.
Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(study: Study, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(study.folder)
        code = volprompt("verify", "--configfile", "config.yaml", *arguments)
        return code, capsys.readouterr().out

    return run


def counts(text: str) -> dict[str, tuple[int, int]]:
    """How many hold of how many, by what was looked at."""
    return {what.strip(): (int(held), int(all_)) for held, all_, what in re.findall(r"(\d+) of (\d+)  ([^(\n]+)", text)}


IDENTITIES, FILES, SOURCES, CHECKPOINTS, SCORES, TABLES = (
    "results made from what the configuration asks for",
    "files of results with the bytes that were written",
    "images and references with the bytes that were read",
    "checkpoints with the bytes that the masks were made with",
    "volumes of a model that are scored the same again",
    "tables that follow from the scores",
)


def test_a_finished_study_holds(finished: Study, verify: Verify) -> None:
    files = sorted(path for path in finished.folder.rglob("*") if path.is_file())
    before = [path.stat().st_mtime_ns for path in files]
    code, text = verify(finished)
    assert code == 0, text
    found = counts(text)
    # convert and prompts of 2 shards, masks and scores of 2 models x 2 shards, tables, report, end
    assert found[IDENTITIES] == (15, 15)
    assert found[SOURCES] == (6, 6)
    assert found[CHECKPOINTS] == (2, 2)
    assert found[SCORES] == (6, 6)
    assert found[TABLES] == (25, 25)
    held, looked_at = found[FILES]
    assert held == looked_at > 60
    assert "Everything that was looked at holds." in text
    assert sorted(path for path in finished.folder.rglob("*") if path.is_file()) == files
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_sample_says_so(finished: Study, verify: Verify) -> None:
    code, text = verify(finished, "--sample", "2")
    assert code == 0, text
    assert counts(text)[SCORES] == (2, 2)
    assert "(a sample of 6; --all takes every one)" in text


def keep_times(path: Path, write: Callable[[], None]) -> None:
    """Alter a file as someone would who does not want it to be seen."""
    before = path.stat()
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def first(study: Study, pattern: str) -> Path:
    return min((study.folder / "results").glob(pattern))


def edit_an_image(study: Study) -> None:
    path = study.folder / "volumes" / "knee_d_image.nii.gz"
    image = nib.load(path)
    keep_times(path, lambda: nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), path))


def flip_a_byte_of_the_page(study: Study) -> None:
    path = study.folder / "results" / "report" / "index.html"
    keep_times(path, lambda: path.write_text(path.read_text().replace("<body", "<BODY", 1)))


def damage_a_checkpoint(study: Study) -> None:
    """Inside, where its directory does not show it."""
    path = study.folder / "models" / "small.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    keep_times(path, lambda: path.write_bytes(bytes(content)))


def forge(study: Study, kind: str, alter: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Other scores, with an identity that agrees with them. kind: ending of the table's name."""
    path = first(study, "scores/sam1/*/000.parquet")
    forged, identity = path.with_name(f"000{kind}.parquet"), read_identity(path)
    assert identity is not None
    write_table(alter(pd.read_parquet(forged)), forged, table_metadata(forged))
    write_identity(path, identity.settings, identity.made_from, path.parent.glob("000*.parquet"))


def forge_scores(study: Study) -> None:
    forge(study, "", lambda table: table.assign(dice=table["dice"] + 0.01))


def forge_scores_of_slices(study: Study) -> None:
    forge(study, "_slices", lambda table: table.assign(intersection=table["intersection"] + 1))


def forge_scores_of_rounds(study: Study) -> None:
    forge(study, "_rounds", lambda table: table.assign(dice=table["dice"] + 0.01))


def drop_a_round(study: Study) -> None:
    forge(study, "_rounds", lambda table: table[table["round"] == 0])


def forge_the_median_table(study: Study) -> None:
    forge_a_table(study, "medians.csv")


def forge_the_table_of_corrections(study: Study) -> None:
    forge_a_table(study, "corrections.csv")


def forge_a_table(study: Study, name: str) -> None:
    """Another number in a table, with an identity that agrees with it."""
    path = study.folder / "results" / "tables" / name
    identity = read_identity(path.parent)
    assert identity is not None
    before = path.read_text()
    path.write_text(re.sub(r"0\.\d\d", "0.99", before))
    assert path.read_text() != before
    write_identity(path.parent, identity.settings, identity.made_from)


def ask_for_another_tolerance(study: Study) -> None:
    study.configure(scores={"surface_tolerance_mm": 2.0})


def delete_a_mask(study: Study) -> None:
    first(study, "masks/sam1/*/000/*/*_mask.nii.gz").unlink()


# What is altered, what does not hold then, and a part of what is said. A study with all alterations of a group is
# verified once: in each group no two alterations are of one table, or of what another one follows from.
ALTERATIONS: list[list[tuple[Callable[[Study], None], set[str], str]]] = [
    [
        (edit_an_image, {SOURCES}, "volumes/knee_d_image.nii.gz has other bytes"),
        (flip_a_byte_of_the_page, {FILES}, "report: index.html was edited"),
        (damage_a_checkpoint, {CHECKPOINTS}, "models/small.pth: it has other bytes"),
        (ask_for_another_tolerance, {IDENTITIES}, "surface_tolerance_mm: 1.0, now 2.0"),
    ],
    [
        (forge_scores, {SCORES, TABLES}, "scores/sam1/small_sam/000, volume knee_d: dice of "),
        (forge_the_table_of_corrections, {TABLES}, "corrections.csv: other values come out"),
    ],
    [
        (forge_scores_of_rounds, {SCORES, TABLES}, "volume knee_d: dice of corrected/combined/round 0 is "),
        (forge_the_median_table, {TABLES}, "medians.csv: other values come out"),
    ],
    [(forge_scores_of_slices, {SCORES}, "volume knee_d: intersection of box/femur/slice ")],
    [(drop_a_round, {SCORES, TABLES}, "volume knee_d: 3 rows by round are stored, 6 come out")],
    [(delete_a_mask, {IDENTITIES, FILES, SCORES}, "_mask.nii.gz is missing")],
]


@pytest.mark.parametrize("group", ALTERATIONS, ids=lambda group: "-".join(alter.__name__ for alter, _, _ in group))
def test_what_was_altered_is_found(
    study: Study, verify: Verify, group: list[tuple[Callable[[Study], None], set[str], str]]
) -> None:
    for alter, _, _ in group:
        alter(study)
    code, text = verify(study)
    assert code == 1
    assert [said for _, _, said in group if said not in text] == []
    broken = {what for what, (held, looked_at) in counts(text).items() if held < looked_at}
    assert set().union(*(expected for _, expected, _ in group)) <= broken


def test_a_study_that_is_not_finished(study: Study, verify: Verify) -> None:
    """What is missing is told apart from what is wrong with the rest; without any results there is one sentence."""
    results = study.folder / "results"
    (results / "complete.txt").unlink()
    (results / "complete.json").unlink()
    code, text = verify(study)
    assert code == 1
    assert text.startswith(
        "results: too many volumes failed (see tables/failures.csv), or the run was stopped. To go on:"
    )
    for made in ("masks/sam2/small_sam2/001", "tables", "report"):
        shutil.rmtree(results / made)
    for file in (
        "scores/sam2/small_sam2/001.parquet",
        "scores/sam2/small_sam2/001.json",
    ):
        (results / file).unlink()
    code, text = verify(study)
    assert code == 1
    assert text.startswith(
        "results: this study is not finished. Missing: masks (1 of 4), scores (1 of 4), tables, report, complete.txt. "
        "To go on:\n  snakemake --profile profiles/local --configfile config.yaml\n"
    )
    assert text.endswith("Everything that was looked at holds.\n")
    found = counts(text)
    assert found[IDENTITIES] == (10, 10)
    assert found[SCORES] == (4, 4)
    assert found[TABLES] == (0, 0)
    delete_a_mask(study)
    code, text = verify(study)
    assert "Missing: masks (1 of 4)," in text
    assert counts(text)[IDENTITIES] == (9, 10)
    shutil.rmtree(results / "masks")  # what was made from them is there
    assert "masks/" not in verify(study)[1]
    shutil.rmtree(results)
    assert verify(study) == (
        1,
        "results: this study has not been run yet (or with other files behind --configfile). To run it:\n"
        "  snakemake --profile profiles/local --configfile config.yaml\n",
    )


def test_what_was_taken_out_is_named(study: Study, verify: Verify) -> None:
    """And what is new, where tables and report were made before."""
    config = study.config
    config["experiments"]["sam1"]["schemes"].remove("box")
    config["experiments"]["sam2"]["schemes"].append("box")
    del config["schemes"]["point_video"]
    config["experiments"]["sam2"]["schemes"].remove("point_video")
    study.configure(**config)
    code, text = verify(study)
    assert code == 1
    assert text.endswith(" things do not hold.\nThe next run makes again what the first count lacks.\n")
    said = (
        "made with scheme sam1/box, scheme sam2/point_video, which the configuration no longer has (`volprompt prune` "
        "lists what can go); made without scheme sam2/box, which the configuration now has\n"
    )
    assert f"- tables: {said}" in text
    assert "- masks/sam2/small_sam2/000: schemes.box is new\n" in text
    assert counts(text)[SCORES] == (3, 3)  # those of sam1: the others lack a scheme
    assert "tables that follow from the scores (not compared: they were made with other settings)" in text
    study.configure(**{**config, "experiments": {"sam1": config["experiments"]["sam1"]}})
    _, text = verify(study)
    for made in ("tables", "report"):
        assert f"- {made}: made with scheme sam1/box, experiment sam2, which the configuration no longer has (`" in text


def test_masks_of_a_shard_that_no_weights_were_loaded_for(study: Study, verify: Verify) -> None:
    """Where no volume could be segmented, the identity holds no digest of all bytes."""
    for path in (study.folder / "results" / "masks" / "sam1").glob("*/*/identity.json"):
        identity = json.loads(path.read_text())
        del identity["settings"]["checkpoint"]["sha256"]
        path.write_text(json.dumps(identity))
    _, text = verify(study)
    assert counts(text)[CHECKPOINTS] == (1, 1)
