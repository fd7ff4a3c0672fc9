"""How a configuration is written: what YAML turns, what is there twice, and the file and line of every fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from volprompt.settings.documents import DocumentError, read_document
from volprompt.settings.options import require_one_use, uses_of
from volprompt.settings.reading import (
    ConfigurationError,
    load_config,
    read_settings,
    with_sources,
)

TEXT = """\
structures:
  femur: {labels: [1]}
schemes:
  point:
    predictor: image
    point: centroid
models:
  m: {family: sam, architecture: vit_b, checkpoint: x.pth}
experiments:
  e: {models: [m], schemes: [point]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(*texts: str) -> list[str]:
    """The faults of files of these texts: 1.yaml, 2.yaml and so on."""
    for number, text in enumerate(texts, 1):
        Path(f"{number}.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(load_config(*(f"{number}.yaml" for number in range(1, len(texts) + 1))))
    return caught.value.faults


def test_a_configuration_without_faults() -> None:
    Path("1.yaml").write_text(TEXT)
    assert load_config("1.yaml") == yaml.safe_load(TEXT)
    assert list(read_settings(load_config("1.yaml")).structures) == ["femur"]


@pytest.mark.parametrize(
    ("added", "place"),
    [
        ("structures: {tibia: {labels: [3]}}\n", "1.yaml line 11: structures: is there already in line 1;"),
        ("shards: 4\nshards: 4\n", "1.yaml line 12: shards: is there already in line 11;"),
        ("frames: {axis: axial, axis: coronal}\n", "1.yaml line 11: frames.axis: is there already in line 11;"),
        ("report:\n  title: a\n  'title': b\n", "1.yaml line 13: report.title: is there already in line 12;"),
    ],
)
def test_a_key_that_is_there_twice(added: str, place: str) -> None:
    assert any(fault.startswith(place) for fault in faults(TEXT + added))


def test_a_key_that_is_there_twice_deep_inside() -> None:
    text = TEXT.replace("    point: centroid\n", "    slice: [{index: 3, index: 4}]\n    point: centroid\n")
    assert faults(text)[0].startswith("1.yaml line 6: schemes.point.slice.0.index: is there already in line 6;")


def test_in_json_too() -> None:
    assert faults('{\n\t"shards": 4,\n\t"shards": 8\n}')[0].startswith(
        "1.yaml line 3: shards: is there already in line 2"
    )


def test_a_merged_section_may_be_changed() -> None:
    text = TEXT.replace("  point:\n", "  point: &point\n") + "report: {title: a}\n"
    text = text.replace("models:\n", "  inner: {<<: *point, point: interior}\nmodels:\n")
    Path("1.yaml").write_text(text)
    assert read_settings(load_config("1.yaml")).schemes["inner"].origins == ("interior",)
    wrong = text.replace("point: interior", "point: innermost")
    assert faults(wrong)[0].startswith("1.yaml line 7: schemes.inner.point: ")


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("shards: 010\n", "shards: is written `010`, which YAML reads as 8;"),
        ("shards: 1:30\n", "shards: is written `1:30`, which YAML reads as 90;"),
        ("shards: 08\n", "shards: expected a decimal number without leading zeros and `:` (found '08')"),
        ("shards: yes\n", "shards: expected another value than true or false (found `yes`, which YAML reads as true)"),
        (
            "max_failed_fraction: no\n",
            "max_failed_fraction: expected another value than true or false (found `no`, which YAML reads as false)",
        ),
        ("frames: {axis: off}\n", "frames.axis: expected another value than true or false (found `off`, which"),
        (
            "frames: {intensity_percentiles: [no, 99]}\n",
            "frames.intensity_percentiles: expected another value than true",
        ),
        (
            "report: {title: 2024-01-31}\n",
            "report.title: Input should be a valid string (found datetime.date(2024, 1, 31)); put it into quotes: "
            "'2024-01-31'",
        ),
        ("report: {title: 1_000}\n", "report.title: Input should be a valid string (found `1_000`, which YAML reads"),
        ("report: {example: 0x10}\n", "report.example: Input should be a valid string (found `0x10`, which YAML reads"),
        ("report: {example: 0012}\n", "report.example: is written `0012`, which YAML reads as 10;"),
        ("scores: {surface_tolerance_mm: .inf}\n", "scores.surface_tolerance_mm: Input should be a finite number"),
        ("scores: {surface_tolerance_mm: 1e999}\n", "scores.surface_tolerance_mm: Input should be a finite number"),
        ("max_failed_fraction: .nan\n", "max_failed_fraction: Input should be a finite number"),
        ("volumes: ~\n", "volumes: has no value (null); give one, or leave the key out"),
        ("volumes:\n", "volumes: has no value (null)"),
        ("report:\n  title:\n", "report.title: has no value (null)"),
        ("yes: 1\n", "yes: the name `yes` is read by YAML as true; put it into quotes: 'yes'"),
    ],
)
def test_values_that_yaml_turns(added: str, fault: str) -> None:
    line = TEXT.count("\n") + added.count("\n")
    (found,) = faults(TEXT + added)
    assert found.startswith(f"1.yaml line {line}: {fault}")


@pytest.mark.parametrize("section", ["structures", "schemes", "models", "experiments"])
def test_a_required_section_without_a_value(section: str) -> None:
    empty = {**yaml.safe_load(TEXT), section: None}
    (found,) = [fault for fault in faults(yaml.safe_dump(empty, sort_keys=False)) if section in fault]
    assert found.endswith(f": {section}: is required, and has no value (null); give one")
    lacking = {key: value for key, value in empty.items() if key != section}
    assert f"{section}: is required" in faults(yaml.safe_dump(lacking, sort_keys=False))


@pytest.mark.parametrize(
    ("name", "read"), [("010", "the number 8"), ("yes", "true"), ("1:30", "the number 90"), ("~", "nothing (null)")]
)
def test_names_that_yaml_turns(name: str, read: str) -> None:
    found = faults(TEXT.replace("femur", name))
    assert f"1.yaml line 2: structures.{name}: the name `{name}` is read by YAML as {read}; put it into" in found[0]


def test_labels_that_yaml_turns() -> None:
    assert "labels.0: is written `010`, which YAML reads as 8" in faults(TEXT.replace("[1]", "[010]"))[0]
    assert faults(TEXT.replace("[1]", "[yes]"))[0].startswith(
        "1.yaml line 2: structures.femur.labels: expected another"
    )


def test_numbers_in_quotes_are_numbers() -> None:
    """The values inside of `--config 'frames={axis: axial}'` are all text."""
    Path("1.yaml").write_text(TEXT + "shards: '4'\nscores: {surface_tolerance_mm: 1e-1}\n")
    settings = read_settings(load_config("1.yaml"))
    assert settings.shards == 4
    assert settings.scores.surface_tolerance_mm == 0.1


def test_a_later_file_changes_an_earlier_one() -> None:
    over = "shards: 3\nstructures: {tibia: {labels: [3]}}\nschemes: {point: {point: interior}}\n"
    Path("1.yaml").write_text(TEXT + "shards: 4\n")
    Path("2.yaml").write_text(over)
    settings = read_settings(load_config("1.yaml", "2.yaml"))
    assert settings.shards == 3
    assert list(settings.structures) == ["femur", "tibia"]
    assert settings.schemes["point"].origins == ("interior",)
    assert settings.schemes["point"].predictor == "image"


def test_faults_of_two_files_have_the_line_of_the_file_that_counts() -> None:
    first = TEXT + "shards: 0\nmax_failed_fraction: 3\n"
    found = faults(first, "\nshards: -1\nschemes: {point: {box: perhaps}}\n")
    assert sorted(fault.partition(": ")[0] for fault in found) == ["1.yaml line 12", "2.yaml line 2", "2.yaml line 3"]


def test_what_the_command_line_says_has_no_line() -> None:
    Path("1.yaml").write_text(TEXT + "shards: 4\nreport: {titel: a}\nframes: {axis: axial}\n")
    config = {**yaml.safe_load(Path("1.yaml").read_text()), "shards": 0, "frames": "axial", "scores": {"border": "no"}}
    with pytest.raises(ConfigurationError) as caught:
        read_settings(with_sources(config, ["1.yaml", "no file"], "--config"))
    frames, border, shards, title = sorted(caught.value.faults)
    assert border.startswith("--config: scores.border: Input should be")
    assert frames.startswith("--config: frames: Input should be")
    assert shards.startswith("--config: shards: Input should be greater")
    assert title.startswith("1.yaml line 12: report.titel: unknown key")


def test_a_section_of_a_larger_configuration() -> None:
    """As a module of another workflow is given one."""
    inner = "".join(f"  {line}\n" for line in (TEXT + "shards: 0\n").splitlines())
    Path("1.yaml").write_text(f"own: {{a: 1, a: 2}}\nknees:\n{inner}")
    config = yaml.safe_load(Path("1.yaml").read_text())["knees"]
    with pytest.raises(ConfigurationError) as caught:
        read_settings(with_sources(config, ["1.yaml"]))
    (fault,) = caught.value.faults
    assert fault.startswith("1.yaml line 13: shards: ")


def test_files_that_are_no_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"none.yaml: cannot be read \(No such file or directory\)"):
        load_config("none.yaml")
    Path("1.yaml").write_text("- a\n")
    with pytest.raises(ConfigurationError, match="holds a list; expected keys"):
        load_config("1.yaml")
    Path("1.yaml").write_text("a: [\n")
    with pytest.raises(ConfigurationError, match="is not valid YAML"):
        load_config("1.yaml")


def test_anchors_that_hold_themselves_or_repeat_without_end() -> None:
    Path("1.yaml").write_text("a: &a [*a]\n")
    assert list(read_document("1.yaml").values) == ["a"]
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    Path("1.yaml").write_text("\n".join(lines))
    with pytest.raises(DocumentError, match="stands for more than"):
        read_document("1.yaml")


def test_an_option_that_is_given_more_than_once() -> None:
    once = ["snakemake", "--configfile", "a.yaml", "b.yaml", "--cores", "1", "--", "--configfile", "target"]
    assert uses_of(once, "--configfile", "--configfiles") == [["a.yaml", "b.yaml"]]
    require_one_use("--configfile", uses_of(once, "--configfile", "--configfiles"))
    twice = ["snakemake", "--configfile", "a.yaml", "-n", "target", "--configfiles=b.yaml", "c", "-C", "shards=1"]
    assert uses_of(twice, "--configfile", "--configfiles") == [["a.yaml"], ["b.yaml"]]
    assert uses_of(twice, "--config", "-C") == [["shards=1"]]
    attached = ["snakemake", "-Cshards=4", "-nC", "shards=5", "results=r", "-C=shards=6", "--cores", "2"]
    assert uses_of(attached, "--config", "-C") == [["shards=4"], ["shards=5", "results=r"], ["shards=6"]]
    with pytest.raises(ConfigurationError, match="--configfile: is given more than once, and Snakemake takes the last"):
        require_one_use("--configfile", uses_of(twice, "--configfile", "--configfiles"))
