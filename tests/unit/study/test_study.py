"""The study is checked as a whole: tables, checkpoints and what refers to what."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from volprompt.checkpoints.catalogue import CatalogueEntry, read_catalogue
from volprompt.files import sha256_of
from volprompt.identity import differences
from volprompt.settings.reading import ConfigurationError
from volprompt.study.data import Data
from volprompt.study.identities import (
    pages_settings,
    report_settings,
    score_settings,
    segment_settings,
    tables_settings,
)
from volprompt.study.models import training_step
from volprompt.study.study import Study, read_study, shard_of

CONFIG = Path(__file__).resolve().parents[3] / "config"
TINY = "configs/sam2/sam2_hiera_t.yaml"
SUM = "0123456789abcdef" * 4
CATALOGUE = {
    "sam2_tiny.pt": CatalogueEntry(
        url="https://example.org/sam2_tiny.pt", sha256=SUM, licence="Apache-2.0", family="sam2", architecture=TINY
    ),
    "sam_b.pth": CatalogueEntry(
        url="https://example.org/sam_b.pth", sha256=SUM[::-1], licence="Apache-2.0", family="sam", architecture="vit_b"
    ),
}
SMALL: dict[str, Any] = {
    "volumes": "volumes.tsv",
    "shards": 4,
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}, "patella": {"labels": [5], "scored": False}},
    "schemes": {
        "point": {"predictor": "image", "point": "centroid"},
        "point_video": {"predictor": "video", "point": ["click", "centroid"]},
    },
    "models": {
        "sam": {"family": "sam", "architecture": "vit_b", "checkpoint": "sam_b.pth"},
        "tiny": {"family": "sam2", "architecture": TINY, "checkpoint": "sam2_tiny.pt"},
        "mine": {"family": "sam2", "architecture": TINY, "checkpoint": "runs/mine.pt"},
    },
    "experiments": {
        "one": {"models": ["sam"], "schemes": ["point"]},
        "two": {"models": ["tiny", "mine"], "schemes": ["point", "point_video"]},
    },
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two volumes and a checkpoint, to which SMALL refers."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine.pt").write_bytes(b"weights")
    Path("image.nii").touch()
    write_sheet("a\timage.nii\t", "b\timage.nii\timage.nii")
    return tmp_path


def write_sheet(*rows: str, head: str = "volume\timage\treference", path: str = "volumes.tsv") -> None:
    Path(path).write_text("\n".join([head, *rows]) + "\n")


def changed(**values: Any) -> dict[str, Any]:
    """SMALL with values set; a double underscore separates the parts of a path."""
    config = copy.deepcopy(SMALL)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = config
        for part in parents:
            place = place[part]
        place[last] = value
    return config


def read(config: dict[str, Any]) -> Study:
    return read_study(config, CATALOGUE)


def faults(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(config)
    return caught.value.faults


# Faults


def test_a_study_without_faults() -> None:
    study = read(SMALL)
    assert [volume.volume for volume in study.volumes] == ["a", "b"]
    assert study.scored_structures == ["femur", "tibia"]
    assert list(study.checkpoints) == ["sam", "tiny", "mine"]
    assert {name: parts.models for name, parts in study.experiments.items()} == {
        "one": ["sam"],
        "two": ["tiny", "mine"],
    }


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"volumes": "my volumes.tsv"},
            "my volumes.tsv: no such file; make it with `volprompt sheet LAYOUT FOLDERS --out 'my volumes.tsv'`, or "
            "correct the path",
        ),
        (
            {"clicks": "none.csv"},
            "none.csv: no such file; make it with `volprompt clicks collect --table none.csv`, or correct the path",
        ),
        (
            {"schemes__point__structures": ["femur", "tibia", "pattela"]},
            "schemes.point.structures: there is no structure 'pattela'; did you mean 'patella'?",
        ),
        ({"schemes__point__structures": ["patella"]}, "schemes.point.structures: names none that is scored"),
        (
            {"structures__femur__labels": [0, 1]},
            "structures.femur.labels.0: Input should be greater",
        ),
        ({"experiments__one__models": ["sma"]}, "experiments.one.models: there is no model 'sma'; did you mean 'sam'?"),
        (
            {"experiments__one__schemes": ["points"]},
            "experiments.one.schemes: there is no scheme 'points'; did you mean 'point'?",
        ),
        (
            {"experiments__one__schemes": ["point_video"]},
            "experiments.one: 'point_video' is a video scheme, and 'sam' (family sam) has no memory",
        ),
        (
            {"experiments__one__models": ["sam", "tiny"]},
            "experiments.two: tiny with point is already part of 'one'",
        ),
        ({"experiments__one__models": ["sam", "sam"]}, "experiments.one: sam with point is already part of 'one'"),
        (
            {"models__mine__checkpoint": "runs/none.pt"},
            "models.mine: there is no checkpoint runs/none.pt, and the catalogue has no 'none.pt' to fetch",
        ),
        (
            {"models__tiny__checkpoint": "sam2_tin.pt"},
            "models.tiny: there is no checkpoint checkpoints/sam2_tin.pt, and the catalogue has no 'sam2_tin.pt' to "
            "fetch; did you mean 'sam2_tiny.pt'?",
        ),
        (
            {"models__tiny__architecture": "configs/sam2/sam2_hiera_l.yaml"},
            "models.tiny: sam2_tiny.pt holds family sam2, architecture configs/sam2/sam2_hiera_t.yaml; found sam2, "
            "configs/sam2/sam2_hiera_l.yaml",
        ),
        (
            {"models__mine__architecture": "configs/sam2/sam2_hiera_x.yaml"},
            "models.mine.architecture: 'configs/sam2/sam2_hiera_x.yaml' is neither in the sam2 package nor an existing "
            "YAML file; did you mean 'configs/sam2/sam2_hiera_",
        ),
        (
            {"models__sam__architecture": "vit_x"},
            "models.sam.architecture: 'vit_x' is neither one of vit_b, vit_l, vit_h nor an existing YAML file",
        ),
        ({"report": {"example": "c"}}, "report.example: volume 'c' is not in volumes.tsv"),
    ],
)
def test_one_fault(values: dict[str, Any], fault: str) -> None:
    found = faults(changed(**values))
    assert any(each.startswith(fault) for each in found), found


def test_schemes_of_no_experiment_are_not_used() -> None:
    unused = {"box": {"predictor": "image", "box": True}}
    study = read({**SMALL, "schemes": {**SMALL["schemes"], **unused}})
    assert list(study.settings.used_schemes) == ["point", "point_video"]
    assert study.every_slice_schemes == ["point"]


def test_no_structure_is_scored() -> None:
    config = changed(structures__femur__scored=False, structures__tibia__scored=False)
    assert any(fault.startswith("structures: none is scored") for fault in faults(config))


# The names of scores over all structures, and of columns of the median table.
@pytest.mark.parametrize(
    "name",
    ["combined", "union", "mean", "model", "scheme", "parameters", "n", "seconds_per_volume", "combined_nsd"],
)
def test_reserved_names_of_structures(name: str) -> None:
    config = copy.deepcopy(SMALL)
    config["structures"][name] = {"labels": [7]}
    (fault,) = faults(config)
    assert fault.startswith(f"structures.{name}: this name is taken")


@pytest.mark.parametrize("name", ["femur_low", "femur_iqr", "combined_worst", "patella_undefined", "femur_failed_as_0"])
def test_names_of_structures_that_are_columns_of_another(name: str) -> None:
    config = copy.deepcopy(SMALL)
    config["structures"][name] = {"labels": [7]}
    (fault,) = faults(config)
    assert fault.startswith(f"structures.{name}: this name is taken")


def test_all_faults_are_listed_at_once() -> None:
    """Every kind of fault that the configuration's documentation names, in one message."""
    write_sheet("a\timage.nii\t", "b\tnone.nii\t", "a\timage.nii\t")
    config = changed(
        frames={"axes": "axial"},
        schemes__point__structures=["femur", "tibia", "pattela"],
        models__mine__checkpoint="runs/none.pt",
        experiments__one__schemes=["point", "point_video"],
    )
    found = faults(config)
    for fault in (
        "frames.axes: unknown key; did you mean 'axis'?",
        "schemes.point.structures: there is no structure 'pattela'; did you mean 'patella'?",
        "models.mine: there is no checkpoint runs/none.pt",
        "volumes.tsv line 3: image 'none.nii' of volume 'b' does not exist",
        "volumes.tsv line 4: volume 'a' stands already in line 2",
        "experiments.one: 'point_video' is a video scheme",
    ):
        assert any(each.startswith(fault) for each in found), (fault, found)
    assert len(found) == 6


def test_a_label_is_scored_or_ignored() -> None:
    assert faults(changed(ignore={"labels": [9, 1]}))[0].startswith("ignore.labels: holds [1], and so does structures.")


def test_corrections_are_part_of_masks_identity_with_what_they_ignore() -> None:
    """Of masks without corrections neither says anything."""
    before = segment_settings(read(SMALL), "two", "tiny")
    assert segment_settings(read(changed(ignore={"labels": [9]})), "two", "tiny") == before
    corrected = changed(schemes__point__corrections={"clicks": 2})
    after = segment_settings(read(corrected), "two", "tiny")
    assert differences(before, after) == ['schemes.point.corrections: none, now {"clicks": 2}']
    with_ignored = segment_settings(read({**corrected, "ignore": {"labels": [9]}}), "two", "tiny")
    assert differences(after, with_ignored) == ["ignored: none, now [9]"]


def test_tolerance_and_border_are_part_of_scores_identity_whatever_their_spelling() -> None:
    def settings(**scores: Any) -> dict[str, Any]:
        return score_settings(read(changed(scores=scores)), "one")

    plain = settings()
    assert differences(plain, settings(surface_tolerance_mm={"tibia": 1, "femur": 1.0, "patella": 7})) == []
    assert differences(plain, settings(surface_tolerance_mm=1, border="count", acceptable_dice=0.9)) == []
    each = settings(surface_tolerance_mm={"femur": 1, "tibia": 0.5})
    assert differences(each, settings(surface_tolerance_mm={"tibia": 0.5, "femur": 1.0})) == []
    assert differences(plain, each) == ['scores.surface_tolerance_mm: 1.0, now {"femur": 1.0, "tibia": 0.5}']
    assert differences(plain, settings(border="ignore")) == ['scores.border: "count", now "ignore"']
    masks = [segment_settings(read(changed(scores={"border": border})), "one", "sam") for border in ("count", "ignore")]
    assert masks[0] == masks[1]


def test_faults_of_values_do_not_hide_those_of_the_tables() -> None:
    write_sheet("a\timage.nii\t", "a\timage.nii\t")
    config = changed(frames={"intensity_percentiles": [99, 1]}, inference={"device": "gpu"})
    found = faults(config)
    assert [fault.split(":")[0] for fault in found] == ["frames", "inference.device", "volumes.tsv line 3"]


def test_a_fault_is_not_followed_by_faults_of_its_own_making() -> None:
    # Without its checkpoint the model is faulty; that it is unknown to its experiment is not a second fault.
    found = faults(changed(models__mine__checkpoint=None))
    assert [fault.split(":")[0] for fault in found] == ["models.mine"]
    found = faults(changed(schemes__point__point=None))
    assert [fault.split(":")[0] for fault in found] == ["schemes.point"]


def test_faults_of_one_scheme_leave_the_others_to_be_checked() -> None:
    # Two faulty values and an unknown key named like another scheme: that one's own fault is still found.
    config = changed(schemes__point__structures=["femur", "tibia", "pattela"])
    config["schemes"]["bad"] = {"predictor": "image", "box": "perhaps", "multimask": "perhaps", "point": "centre"}
    config["experiments"]["two"]["schemes"].append("bad")
    found = {fault.split(":")[0] for fault in faults(config)}
    assert found == {"schemes.bad.box", "schemes.bad.multimask", "schemes.bad.point", "schemes.point.structures"}


# Sample sheet


def test_every_column_of_the_sheet() -> None:
    Path("clicks.csv").write_text("structure,slice,x,y\nfemur,3,4.5,6\n")
    write_sheet("b\timage.nii\tclicks.csv\timage.nii\tjohn", head="volume\treference\tclicks\timage\tgroup")
    study = read(SMALL)
    (volume,) = study.volumes
    assert (volume.volume, volume.image, volume.reference) == ("b", "image.nii", "image.nii")
    assert (volume.group, volume.clicks) == ("john", "clicks.csv")
    (click,) = study.clicks
    assert (click.volume, click.structure, click.slice, click.x, click.y) == ("b", "femur", 3, 4.5, 6.0)


def test_a_series_is_chosen_in_the_sheet() -> None:
    write_sheet("a\timage.nii\timage.nii\tSag DESS@1", "b\timage.nii\t\t", head="volume\timage\treference\tseries")
    assert [volume.series for volume in read(SMALL).volumes] == ["Sag DESS@1", ""]


def test_missing_files_are_left_to_the_conversion_where_they_are_skipped() -> None:
    write_sheet("a\timage.nii\timage.nii", "b\tnone.nii\timage.nii", "c\timage.nii\tnone.nii")
    assert len(faults(SMALL)) == 2
    assert [volume.volume for volume in read(changed(on_invalid="skip")).volumes] == ["a", "b", "c"]
    write_sheet("a\t\timage.nii")
    (fault,) = faults(changed(on_invalid="skip"))
    assert fault == "volumes.tsv line 2: image '' of volume 'a' does not exist"


def test_a_sheet_in_csv() -> None:
    write_sheet("a,image.nii,image.nii", head="volume,image,reference", path="volumes.csv")
    assert [volume.volume for volume in read(changed(volumes="volumes.csv")).volumes] == ["a"]


def test_a_sheet_from_a_spreadsheet_program() -> None:
    Path("volumes.tsv").write_bytes("\ufeffvolume\timage\treference\r\na\timage.nii\timage.nii\r\n\r\n".encode())
    (volume,) = read(SMALL).volumes
    assert (volume.volume, volume.image) == ("a", "image.nii")


def test_further_columns_of_the_sheet_are_covariates() -> None:
    rows = "a\timage.nii\timage.nii\t2\tleft", "b\timage.nii\timage.nii\t\tright"
    write_sheet(*rows, head="volume\timage\treference\tgrade\tside")
    study = read(SMALL)
    assert study.table_design["covariates"] == {"grade": {"a": "2"}, "side": {"a": "left", "b": "right"}}
    assert tables_settings(study)["covariates"] == study.table_design["covariates"]


def test_schemes_that_differ_in_the_seed_alone_are_repetitions() -> None:
    noisy = {"predictor": "image", "box": True, "noise": {"boxes_mm": 2, "repetitions": 2}}
    config = changed(schemes={"box": noisy, "point": {"predictor": "image", "point": "centroid"}})
    config["experiments"] = {"all": {"models": ["mine"], "schemes": ["box", "point"]}}
    assert read(config).table_design["repetitions"] == {"box_1": "box", "box_2": "box"}
    config["comparisons"] = {"baseline": ["mine", "box"], "margin": 0.02}
    design = read(config).table_design
    assert (design["baseline"], design["margin"]) == (("mine", "box"), 0.02)
    single = {**noisy, "noise": {"boxes_mm": 2, "seed": 7}}
    config = changed(schemes={"wide": single, "other": {**single, "noise": {"boxes_mm": 2, "seed": 8}}})
    config["experiments"] = {"all": {"models": ["mine"], "schemes": ["wide", "other"]}}
    assert read(config).table_design["repetitions"] == {
        "wide": "wide",
        "other": "wide",
    }  # no common name: the first one's


def test_a_baseline_that_nothing_runs() -> None:
    config = changed(comparisons={"baseline": ["mine", "box"]})
    (fault,) = faults(config)
    assert fault.startswith(
        "comparisons.baseline: no experiment runs [mine, box]; expected a model and a scheme: one of ["
    )
    assert "[mine, point]" in fault


def test_published_figures_need_the_structures_that_they_are_of() -> None:
    structures = {**SMALL["structures"], "tibia": {"labels": [3], "scored": False}}
    (fault,) = faults(changed(structures=structures, report={"compare_with": "oai-zib"}))
    assert fault == (
        "report.compare_with: the published figures of oai-zib are of femur and tibia, and tibia is not scored; score "
        "it, or leave compare_with out"
    )


@pytest.mark.parametrize(
    ("head", "rows", "fault"),
    [
        ("volume\tpath", ["a\timage.nii"], "volumes.tsv: column(s) image missing; found path, volume"),
        ("volume,image", ["a,image.nii"], "volumes.tsv: column(s) image, volume missing"),
        (
            "volume\timage\trefrence",
            ["a\timage.nii\timage.nii"],
            "volumes.tsv: column 'refrence' is unknown; did you mean 'reference'?",
        ),
        (
            "volume\timage\tbody side",
            ["a\timage.nii\tleft"],
            "volumes.tsv: column 'body side' is no name for a covariate: use letters, digits and _, and begin with a",
        ),
        (
            "volume\timage\tdice",
            ["a\timage.nii\t0.9"],
            "volumes.tsv: column 'dice' has the name of a column of the tables; choose another",
        ),
        ("volume\timage\t", ["a\timage.nii\tx"], "volumes.tsv: column '' is no name for a covariate"),
        ("volume\timage", [], "volumes.tsv: lists no volume"),
        ("volume\timage", ["a/b\timage.nii"], "volumes.tsv line 2: volume 'a/b' becomes a file name"),
        ("volume\timage", ["a\timage.nii", "\timage.nii"], "volumes.tsv line 3: volume '' becomes a file name"),
        ("volume\timage", ["a\tnone.nii"], "volumes.tsv line 2: image 'none.nii' of volume 'a' does not exist"),
        ("volume\timage", ["a\t"], "volumes.tsv line 2: image '' of volume 'a' does not exist"),
        ("volume\timage", ["a"], "volumes.tsv line 2: image '' of volume 'a' does not exist"),
        (
            "volume\timage\treference",
            ["a\timage.nii\tnone.nii"],
            "volumes.tsv line 2: reference 'none.nii' of volume 'a' does not exist",
        ),
        (
            "volume\timage",
            ["a\timage.nii", "b\timage.nii", "a\timage.nii"],
            "volumes.tsv line 4: volume 'a' stands already in line 2",
        ),
        (
            "volume\timage",
            ["a\timage.nii\timage.nii"],
            "volumes.tsv line 2: has 3 cells, and the header 2; remove what is too much",
        ),
        (
            "volume\timage\timage\tvolume",
            ["a\timage.nii\tother.nii\ta"],
            "volumes.tsv: column(s) image, volume there more than once; keep one of each",
        ),
        ("volume\timage", ['a\t"image.nii', "b\timage.nii"], "volumes.tsv line 2: a quote is opened and not closed"),
        (
            "volume\timage",
            ["a\timage.nii", 'b\t"image.nii', 'c\timage.nii"', "d\timage.nii"],
            "volumes.tsv line 3: a quote is opened and not closed at the end of its cell (it ends in line 4)",
        ),
        ("volume\timage", ['a\t"image".nii'], "volumes.tsv line 2: a quote is opened and not closed"),
        ("volume\timage", [f"{'a' * 101}\timage.nii"], "volumes.tsv line 2: volume 'aaaa"),
        ("volume\timage", ["a.\timage.nii"], "volumes.tsv line 2: volume 'a.' becomes a file name, and ends in a dot"),
        (
            "volume\timage",
            ["knee\timage.nii", "b\timage.nii", "Knee\timage.nii"],
            "volumes.tsv line 4: volume 'Knee' differs from 'knee' in line 2 only in case",
        ),
        ("volume\timage", ["a\t{x}.nii"], "volumes.tsv line 2: image '{x}.nii' of volume 'a' holds { or }"),
        ("volume\timage", ["a\t~/x.nii"], "volumes.tsv line 2: image '~/x.nii' of volume 'a' begins with ~"),
        ("volume\timage", ["a\tx\x00.nii"], "volumes.tsv line 2: image 'x\x00.nii' of volume 'a' holds a line break"),
        ("volume\timage", [f"a\t{'x' * 256}.nii"], "volumes.tsv line 2: image 'xxx"),
        (
            "volume\timage\treference",
            ["a\timage.nii\tr}.nii"],
            "volumes.tsv line 2: reference 'r}.nii' of volume 'a' holds { or }",
        ),
        (
            "volume\timage\tclicks",
            ["a\timage.nii\t~/clicks.csv"],
            "volumes.tsv line 2: clicks '~/clicks.csv' of volume 'a' begins with ~",
        ),
    ],
)
def test_faults_of_the_sheet(head: str, rows: list[str], fault: str) -> None:
    write_sheet(*rows, head=head)
    (found,) = faults(SMALL)
    assert found.startswith(fault)


def test_an_open_quote_in_a_long_table() -> None:
    """Longer than the longest cell that the reader of tables takes."""
    write_sheet('a\t"image.nii', *(f"volume_{number}\timage.nii" for number in range(10_000)))
    (found,) = faults(SMALL)
    assert found.startswith("volumes.tsv line 2: a quote is opened and not closed")


def test_every_fault_of_a_sheet_is_told_at_once() -> None:
    write_sheet("a\timage.nii\t\tx", "b\timage.nii", "b.\timage.nii", "c\t~/c.nii", "b\timage.nii")
    assert [fault.partition(":")[0] for fault in faults(SMALL)] == [f"volumes.tsv line {n}" for n in (2, 4, 5, 6)]
    # Also where the configuration leaves too little for more.
    broken = faults(changed(structures={"a b": {"labels": [1]}}))
    assert broken[0].startswith("structures.a b: 'a b' becomes part of file names")
    assert len(broken) == 5


def test_quotes_and_short_rows_that_are_none_of_these(here: Path) -> None:
    Path('5" knee.nii').touch()
    write_sheet('a\t"image.nii"\timage.nii', "b\timage.nii", "", 'c\t5" knee.nii')
    assert [row.image for row in read(SMALL).volumes] == ["image.nii", "image.nii", '5" knee.nii']


@pytest.mark.parametrize("name", ["structures", "schemes", "models", "experiments"])
def test_names_that_some_file_systems_take_for_one(name: str) -> None:
    config = copy.deepcopy(SMALL)
    first, value = next(iter(config[name].items()))
    config[name][first.upper()] = value
    found = faults(config)
    assert f"{name}.{first.upper()}: differs from '{first}' only in case" in found[0]
    config = copy.deepcopy(SMALL)
    config[name] |= {"x" * 101: value, "y.": value}
    found = [fault for fault in faults(config) if fault.startswith((f"{name}.xxx", f"{name}.y."))]
    assert "has 101 characters: use at most 100" in found[0]
    assert "ends in a dot" in found[1]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"results": ""}, "results: '' is empty; expected a path"),
        ({"results": "  "}, "results: '  ' is empty"),
        ({"results": "a{b}"}, "results: 'a{b}' holds { or }"),
        ({"results": "a<b>"}, "results: 'a<b>' holds <b>, which Snakemake replaces"),
        (
            {"results": "~/knees"},
            "results: '~/knees' begins with ~, which a shell alone expands: write the whole path, /",
        ),
        ({"results": "a/" + "b" * 256}, f"results: 'a/{'b' * 256}' holds a name of more than 255 bytes"),
        ({"checkpoints": "~"}, "checkpoints: '~' begins with ~"),
        ({"clicks": ""}, "clicks: '' is empty"),
        ({"clicks": "~/clicks.csv"}, "clicks: '~/clicks.csv' begins with ~"),
        ({"volumes": "a}.tsv"}, "volumes: 'a}.tsv' holds { or }"),
        ({"models__mine__checkpoint": "~/mine.pt"}, "models.mine.checkpoint: '~/mine.pt' begins with ~"),
        ({"models__mine__checkpoint": ""}, "models.mine.checkpoint: '' is empty"),
        ({"models__sam__architecture": "a{}.yaml"}, "models.sam.architecture: 'a{}.yaml' holds { or }"),
        ({"models__tiny__architecture": "~/a.yaml"}, "models.tiny.architecture: '~/a.yaml' begins with ~"),
    ],
)
def test_paths_that_are_none(values: dict[str, Any], fault: str) -> None:
    assert any(found.startswith(fault) for found in faults(changed(**values)))


def test_an_architecture_with_a_key_that_is_there_twice() -> None:
    Path("mine.yaml").write_text("model:\n  _target_: torch.nn.Module\n  depth: 2\n  depth: 3\n")
    fault = "models.mine.architecture: mine.yaml line 4: model.depth: is there already in line 3; remove one of the two"
    assert faults(changed(models__mine__architecture="mine.yaml")) == [fault]


def test_a_glob_that_finds_a_folder_with_braces() -> None:
    Path("runs/{x}").mkdir()
    Path("runs/{x}/step_1.pt").write_bytes(b"ten")
    (found,) = faults(globbed("runs/*/*.pt"))
    assert found.startswith("models.tuned: runs/{x}/step_1.pt holds { or }")


def test_files_of_a_glob_that_differ_in_case() -> None:
    Path("runs/step_A.pt").write_bytes(b"ten")
    Path("runs/step_a.pt").write_bytes(b"ten")
    (found,) = faults(globbed("runs/step*.pt"))
    assert found.startswith("models.tuned: 'tuned_step_a' differs from 'tuned_step_A' only in case")


def test_a_sheet_that_is_not_in_utf8() -> None:
    Path("volumes.tsv").write_bytes("volume\timage\nM\u00fcller\timage.nii\n".encode("latin-1"))
    (found,) = faults(SMALL)
    assert found.startswith("volumes.tsv: ")
    assert "UTF-8" in found


# Clicks


def test_clicks_of_the_study_and_of_single_volumes() -> None:
    Path("clicks.csv").write_text("volume,structure,slice,x,y\nb,femur,3,1,2\na,tibia,4,3,4\n")
    Path("own.tsv").write_text("structure\tslice\tx\ty\npatella\t5\t5\t6\n")
    Path("all.csv").write_text("volume,structure,slice,x,y\na,femur,1,1,1\nb,femur,2,2,2\n")
    rows = [f"{name}\timage.nii\timage.nii\t{clicks}" for name, clicks in (("a", "own.tsv"), ("b", "all.csv"))]
    write_sheet(*rows, head="volume\timage\treference\tclicks")
    study = read(changed(clicks="clicks.csv", shards=1))
    assert [(click.volume, click.structure, click.slice, click.x, click.y) for click in study.clicks_of("000")] == [
        ("b", "femur", 3, 1, 2),
        ("a", "tibia", 4, 3, 4),
        ("a", "patella", 5, 5, 6),
        ("b", "femur", 2, 2, 2),
    ]


def test_clicks_belong_to_the_shard_of_their_volume() -> None:
    Path("clicks.csv").write_text("volume,structure,slice,x,y\n" + "".join(f"{name},femur,3,1,2\n" for name in "ab"))
    study = read(changed(clicks="clicks.csv", shards=1000))
    assert len(study.shards) == 2
    for shard, volumes in study.shards.items():
        assert [click.volume for click in study.clicks_of(shard)] == [volume.volume for volume in volumes]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            "volume,structure,slice,x\na,femur,3,1\n",
            "clicks.csv: column(s) y missing; found slice, structure, ",
        ),
        (
            "volume,structure,slice,x,y\na,femr,3,1,2\n",
            "clicks.csv line 2: there is no structure 'femr'; did you mean 'femur'?",
        ),
        (
            "volume,structure,slice,x,y\na,femur,3,1,2\na,femur,3,one,2\n",
            "clicks.csv line 3: slice, x and y are '3', 'one', '2'; expected a whole number and two numbers",
        ),
        ("volume,structure,slice,x,y\na,femur,,1,2\n", "clicks.csv line 2: slice, x and y are '', '1', '2'"),
        ("volume,structure,slice,x,y,z\na,femur,3,1,2,3\n", "clicks.csv: unknown column(s) z"),
        ("volume,structure,slice,x,y\na,femur,3,inf,2\n", "clicks.csv line 2: slice, x and y are '3', 'inf', '2'"),
        ("volume,structure,slice,x,y\na,femur,3,1,nan\n", "clicks.csv line 2: slice, x and y are '3', '1', 'nan'"),
        ("volume,structure,slice,x,y\na,femur,3,1,1e999\n", "clicks.csv line 2: slice, x and y are '3', '1', '1e999'"),
        ("volume,structure,slice,x,y\na,femur,8_0,1,2\n", "clicks.csv line 2: slice, x and y are '8_0', '1', '2'"),
        ("volume,structure,slice,x,y\na,femur,3,1,2,5\n", "clicks.csv line 2: has 6 cells, and the header 5"),
        ("volume,structure,slice,x,x,y\na,femur,3,1,7,2\n", "clicks.csv: column(s) x there more than once"),
        ('volume,structure,slice,x,y\na,"femur,3,1,2\n', "clicks.csv line 2: a quote is opened and not closed"),
    ],
)
def test_faults_of_the_clicks(content: str, fault: str) -> None:
    Path("clicks.csv").write_text(content)
    (found,) = faults(changed(clicks="clicks.csv"))
    assert found.startswith(fault)


# Checkpoints


def test_digests() -> None:
    study = read(SMALL)
    assert study.checkpoints["tiny"].digest == f"sha256:{SUM}"
    assert study.checkpoints["tiny"].file == "checkpoints/sam2_tiny.pt"
    assert study.checkpoints["tiny"].catalogued
    mine = study.checkpoints["mine"]
    assert (mine.file, mine.catalogued) == ("runs/mine.pt", False)
    assert mine.digest.startswith("content:")
    os.utime("runs/mine.pt", (1, 1))
    assert read(SMALL).checkpoints["mine"] == mine
    Path("runs/mine.pt").write_bytes(b"other weights")
    assert read(SMALL).checkpoints["mine"].digest != mine.digest
    assert read(SMALL).checkpoints["tiny"] == study.checkpoints["tiny"]


def test_a_file_elsewhere_with_a_name_of_the_catalogue_is_a_local_one() -> None:
    Path("runs/sam2_tiny.pt").write_bytes(b"weights")
    study = read(changed(models__mine__checkpoint="runs/sam2_tiny.pt"))
    assert study.checkpoints["mine"].digest.startswith("content:")


def test_a_local_file_in_the_checkpoint_folder() -> None:
    Path("checkpoints").mkdir()
    Path("checkpoints/own.pt").write_bytes(b"weights")
    study = read(changed(models__mine__checkpoint="own.pt"))
    assert study.checkpoints["mine"].file == "checkpoints/own.pt"
    assert not study.checkpoints["mine"].catalogued


def test_an_architecture_in_a_file_counts_by_its_bytes_and_not_by_its_name() -> None:
    config = changed(models__mine__architecture="own.yaml")
    Path("own.yaml").write_text("model: {}\n")
    first = read(config).checkpoints["mine"].architecture_settings()
    assert read(config).checkpoints["mine"].architecture_settings() == first
    Path("renamed.yaml").write_text("model: {}\n")
    renamed = read(changed(models__mine__architecture="renamed.yaml"))
    assert renamed.checkpoints["mine"].architecture_settings() == first
    Path("own.yaml").write_text("model: {depth: 3}\n")
    assert read(config).checkpoints["mine"].architecture_settings() != first
    assert set(read(config).checkpoints["tiny"].description()) == {"name", "family", "architecture", "digest"}


def test_a_checkpoint_that_is_not_the_catalogues_is_a_fault_before_anything_runs() -> None:
    Path("checkpoints").mkdir(exist_ok=True)
    name = next(iter(CATALOGUE))
    Path("checkpoints", name).write_bytes(b"another file")
    entry = CATALOGUE[name]
    model = {"family": entry.family, "architecture": entry.architecture, "checkpoint": name}
    experiments = {"one": {"models": ["given"], "schemes": ["point"]}}
    (fault,) = faults(changed(models={"given": model}, experiments=experiments))
    assert "is not the file of the catalogue" in fault
    assert entry.sha256 in fault
    assert sha256_of(Path("checkpoints", name)) in fault
    assert Path("checkpoints", name).read_bytes() == b"another file"


def globbed(pattern: str) -> dict[str, Any]:
    tuned = {"family": "sam2", "architecture": TINY, "checkpoints": pattern}
    return changed(
        models={"tuned": tuned}, experiments={"one": {"models": ["tuned"], "schemes": ["point", "point_video"]}}
    )


def test_a_glob_makes_one_model_per_file() -> None:
    Path("runs/epoch_2.pt").write_bytes(b"two")
    Path("runs/epoch_10.pt").write_bytes(b"ten")
    study = read(globbed("runs/epoch_*.pt"))
    assert {name: checkpoint.file for name, checkpoint in study.checkpoints.items()} == {
        "tuned_epoch_10": "runs/epoch_10.pt",
        "tuned_epoch_2": "runs/epoch_2.pt",
    }
    assert study.experiments["one"].models == ["tuned_epoch_10", "tuned_epoch_2"]
    assert len({checkpoint.digest for checkpoint in study.checkpoints.values()}) == 2


def test_faults_of_a_glob() -> None:
    (found,) = faults(globbed("runs/none_*.pt"))
    assert found == "models.tuned.checkpoints: no file matches 'runs/none_*.pt'"
    for fold in ("runs/fold_1", "runs/fold_2"):
        Path(fold).mkdir()
        Path(fold, "best.pt").write_bytes(b"weights")
    found = faults(globbed("runs/fold_*/best.pt"))
    assert any("two models would be named 'tuned_best'" in fault for fault in found)


def test_names_that_a_glob_makes_are_checked() -> None:
    Path("runs/epoch 10.pt").write_bytes(b"ten")
    (found,) = faults(globbed("runs/epoch*.pt"))
    assert found.startswith("models.tuned: 'tuned_epoch 10' becomes part of file names")


def test_models_outside_the_experiments_need_no_checkpoint() -> None:
    config = copy.deepcopy(SMALL)
    config["models"]["later"] = {"family": "sam2", "architecture": TINY, "checkpoint": "runs/later.pt"}
    assert "later" not in read(config).checkpoints


# Shards


def test_the_shard_is_the_crc32_of_the_name() -> None:
    # The check value of CRC-32 in every description of it: 0xCBF43926 for "123456789", which is 3421780262.
    assert zlib.crc32(b"123456789") == 3421780262
    assert shard_of("123456789", 16) == "006"  # 3421780262 = 16 x 213861266 + 6
    assert shard_of("123456789", 1000) == "262"
    assert shard_of("123456789", 1) == "000"


def test_a_volumes_shard_does_not_depend_on_the_others() -> None:
    names = [f"knee{number}" for number in range(40)]
    write_sheet(*(f"{name}\timage.nii\timage.nii" for name in names))
    whole = {volume.volume: shard for shard, volumes in read(SMALL).shards.items() for volume in volumes}
    assert sorted(whole) == sorted(names)
    assert set(whole.values()) == {"000", "001", "002", "003"}
    write_sheet(*(f"{name}\timage.nii\timage.nii" for name in reversed(names[::3])))
    some = {volume.volume: shard for shard, volumes in read(SMALL).shards.items() for volume in volumes}
    assert len(some) == 14
    assert some.items() <= whole.items()


def test_there_are_no_empty_shards() -> None:
    shards = read(changed(shards=1000)).shards
    assert sorted(volume.volume for volumes in shards.values() for volume in volumes) == ["a", "b"]
    assert len(shards) == 2


# The shipped study


def test_the_papers_study() -> None:
    config = yaml.safe_load((CONFIG / "config.yaml").read_text())
    Path("config").mkdir()
    rows = [f"knee{number:03d}\timage.nii\timage.nii" for number in range(488)]
    write_sheet(*rows, path=config["volumes"])
    Path(config["clicks"]).write_text("volume,structure,slice,x,y\nknee000,patella,80,40,117\n")
    study = read_study(config, read_catalogue(CONFIG / "checkpoints.yaml"))
    assert len(study.volumes) == 488
    assert len(study.shards) == 16
    assert len(study.checkpoints) == 7
    assert all(checkpoint.digest.startswith("sha256:") for checkpoint in study.checkpoints.values())
    pairs = {
        (model, scheme) for parts in study.experiments.values() for model in parts.models for scheme in parts.schemes
    }
    assert len(pairs) == 18
    assert study.scored_structures == ["femur", "tibia"]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"structures__patella__labels": [], "schemes__point_video__negatives": "others"},
            "schemes.point_video: needs a point (click or centroid) of 'patella', and no volume has one",
        ),
        (
            {"schemes__point__point": "click"},
            "schemes.point: needs a point (click) of 'femur', a point (click) of 'tibia', and no volume has one",
        ),
    ],
)
def test_a_scheme_that_no_volume_has_prompts_for(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(changed(**values))
    (found,) = caught.value.faults
    assert found.startswith(fault)


def test_a_box_scheme_without_any_reference() -> None:
    write_sheet("a\timage.nii\t")
    Path("clicks.csv").write_text("volume,structure,slice,x,y\na,femur,3,1,2\na,tibia,3,1,2\n")
    point = {"predictor": "image", "point": "click"}
    box = {"predictor": "image", "box": True}
    with pytest.raises(ConfigurationError) as caught:
        read(changed(clicks="clicks.csv", schemes__point=point, schemes__point_video=point | box))
    assert caught.value.faults == [
        "schemes.point_video: needs a box of 'femur', a box of 'tibia', and no volume has one; give labels and "
        "references, or clicks (key `clicks`)"
    ]


def test_corrections_without_any_reference() -> None:
    """They are made from it: to be told before the first job, like a box."""
    write_sheet("a\timage.nii\t")
    Path("clicks.csv").write_text("volume,structure,slice,x,y\na,femur,3,1,2\na,tibia,3,1,2\n")
    scheme = {"predictor": "image", "point": "click"}
    corrected = {**scheme, "corrections": {"clicks": 2}}
    with pytest.raises(ConfigurationError) as caught:
        read(changed(clicks="clicks.csv", schemes__point=scheme, schemes__point_video=corrected))
    (fault,) = caught.value.faults
    assert fault.startswith("schemes.point_video: needs a reference of 'femur', a reference of 'tibia', and no volume")


def test_clicks_of_another_study() -> None:
    Path("clicks.csv").write_text("volume,structure,slice,x,y\nz,femur,3,1,2\n")
    with pytest.raises(ConfigurationError, match=r"clicks\.csv: none of its volumes is in volumes\.tsv; found 'z'"):
        read(changed(clicks="clicks.csv"))


def test_planning_imports_neither_torch_nor_pandas() -> None:
    program = "import sys, volprompt.study.study; print(*{'torch', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("stem", "step"),
    [
        ("checkpoint_12000", 12000),
        ("checkpoint-500", 500),
        ("step=1500", 1500),
        ("epoch_3_step_1200", 1200),
        ("knee-epoch=07", 7),
        ("iter_0040000", 40000),
        ("model_iteration20", 20),
        ("10", 10),
        ("sam2.1_hiera_t_2000", 2000),
        ("sam2.1_hiera_t512", None),
        ("footsteps", None),
        ("best", None),
    ],
)
def test_training_steps_in_file_names(stem: str, step: int | None) -> None:
    assert training_step(stem) == step


@pytest.mark.parametrize(("paths", "moves", "renames"), [("show", True, True), ("hide", False, True)])
def test_paths_that_the_report_shows_belong_to_it(paths: str, moves: bool, renames: bool) -> None:
    """It shows whole paths, or the names of files alone."""

    def settings(image: str, results: str = "results") -> list[dict[str, Any]]:
        Path(image).parent.mkdir(exist_ok=True)
        Path(image).touch()
        write_sheet(f"a\t{image}\t{image}")
        study = read_study(changed(report={"paths": paths}, results=results, shards=1), CATALOGUE)
        return [report_settings(study), pages_settings(study, "000")]

    report, pages = settings("old/image.nii")
    moved, renamed = settings("new/image.nii"), settings("old/other.nii")
    assert [moved[0] != report, moved[1] != pages] == [moves, moves]
    assert [renamed[0] != report, renamed[1] != pages] == [renames, renames]
    elsewhere = settings("old/image.nii", results="elsewhere")
    assert elsewhere[0] == report
    assert (elsewhere[1] != pages) is moves  # with the paths of masks
    assert settings("old/image.nii", results="./results/")[1] == pages


# Data that are elsewhere


def test_a_job_does_not_look_for_the_data_of_others() -> None:
    """The process that planned the run has; a file that is there is looked at, since masks are told by its digest."""
    present = read(SMALL)
    Path("image.nii").unlink()
    study = read_study(SMALL, CATALOGUE, Data.PLANNED)
    assert [row.image for row in study.volumes] == ["image.nii"] * 2
    assert study.checkpoints == present.checkpoints
    Path("runs/mine.pt").unlink()
    mine = read_study(SMALL, CATALOGUE, Data.PLANNED).checkpoints["mine"]
    assert (mine.digest, mine.digests(), mine.files()) == ("", {}, ["runs/mine.pt"])


def test_in_storage_nothing_is_looked_for_here() -> None:
    """Nor what lies here under the same names, which may be something else."""
    config = {**SMALL, "on_invalid": "skip"}
    Path("image.nii").unlink()
    study = read_study(config, CATALOGUE, Data.STORED)
    assert study.sources(study.volumes) == ["image.nii"]
    assert study.checkpoints["mine"].digest == ""
    assert study.checkpoints["tiny"].digest == f"sha256:{SUM}"


def test_in_storage_a_file_has_to_be_whole() -> None:
    """What a rule names is brought to a job, and further files are named only in what is brought."""
    write_sheet("a\tknee.mhd\tknee.nrrd", "b\tknee.img.gz\tknee.nii.gz", "c\tknee.zip\tknee.nhdr")
    config = changed(models__mine__checkpoint="runs/model.safetensors.index.json", models__tiny__checkpoint=None)
    config["models"]["tiny"]["checkpoints"] = "runs/*.pt"
    with pytest.raises(ConfigurationError) as caught:
        read_study(config, CATALOGUE, Data.STORED)
    of_files = "has header and voxels in two files; in storage expected one file (.nii.gz, .nrrd, .mha)"
    assert caught.value.faults == [
        f"volumes.tsv: volume 'a': knee.mhd {of_files}",
        f"volumes.tsv: volume 'b': knee.img.gz {of_files}",
        f"volumes.tsv: volume 'c': knee.nhdr {of_files}",
        "models.tiny.checkpoints: 'runs/*.pt' is a pattern, which is not looked up in storage; name each file "
        "(`checkpoint`)",
        "models.mine: runs/model.safetensors.index.json names further files of weights; in storage expected all in one "
        "file",
    ]
