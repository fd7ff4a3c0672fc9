"""What the documents say can be followed: links lead somewhere, examples are valid, commands and options exist."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
import pytest
import yaml
from tests.unit.command_line import volprompt

from volprompt.__main__ import command
from volprompt.settings.config import Settings
from volprompt.settings.reading import read_settings

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("docs", "config", "benchmarks", "demo")
DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.md"))]
)
NAMES = [str(path.relative_to(REPOSITORY)) for path in DOCUMENTS]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BASE: dict[str, Any] = {
    "structures": {
        name: {"labels": [label]} for label, name in enumerate(("femur", "tibia", "patella", "cartilage"), 1)
    },
    "schemes": {"simple": {"predictor": "image", "point": "centroid"}},
    "models": {"any": {"family": "sam2", "architecture": "any", "checkpoint": "any.pt"}},
}


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(path.read_text(encoding="utf-8")) if language in languages]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    found: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        made.add(anchor + (f"-{found[anchor]}" if found[anchor] else ""))
        found[anchor] += 1
    return made


def links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    path = REPOSITORY / name
    broken = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_document() -> None:
    index = REPOSITORY / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert set((REPOSITORY / "docs").glob("*.md")) - {index} <= linked


def test_pictures_are_small() -> None:
    pictures = [path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.png")]
    assert {path.name for path in pictures} >= {"report.png", "masks.png", "stages.png"}
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


def deep_merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = deep_merge(base[key], value) if both else value
    return merged


def as_configuration(fragment: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration of a part: sections, or lines of `schemes`. Whatever no experiment names gets one."""
    known = set(Settings.model_fields)
    config = deep_merge(copy.deepcopy(BASE), fragment if set(fragment) <= known else {"schemes": fragment})
    if "structures" in fragment:
        config["structures"] = fragment["structures"]
    experiments = {
        name: {"models": ["any"], "schemes": ["simple"], **one}
        for name, one in (config.get("experiments") or {}).items()
    }
    for kind, simple in (("models", "any"), ("schemes", "simple")):  # that the part takes for granted
        for name in (name for one in experiments.values() for name in one[kind]):
            config[kind].setdefault(name, config[kind][simple])
    used = {(kind, name) for one in experiments.values() for kind in ("models", "schemes") for name in one[kind]}
    volume_schemes = [name for name, scheme in config["schemes"].items() if scheme["predictor"] == "volume"]
    for name in config["schemes"]:
        if ("schemes", name) not in used and name not in volume_schemes:
            experiments[f"of_scheme_{name}"] = {"models": ["any"], "schemes": [name]}
    for name in config["models"]:
        if ("models", name) not in used and name != "any":
            experiments[f"of_model_{name}"] = {"models": [name], "schemes": ["simple"]}
    return {**config, "experiments": experiments}


def fragments(path: Path) -> Iterator[str]:
    """Blocks of YAML, and parts of a configuration within a line: `inference: {device: cpu}`, `{predictor: image}`."""
    yield from blocks(path, "yaml")
    for text in re.findall(r"`([^`\n]+)`", prose(path)):
        if re.fullmatch(r"\{predictor: .*\}", text):
            yield f"inline: {text}"
        elif (key := re.match(r"(\w+): \{.*\}$", text)) and key[1] in Settings.model_fields and "..." not in text:
            yield text


@pytest.mark.parametrize("name", [name for name in NAMES if next(fragments(REPOSITORY / name), None)])
def test_examples_of_configurations_are_valid(name: str) -> None:
    for fragment in fragments(REPOSITORY / name):
        try:
            read_settings(as_configuration(yaml.safe_load(fragment)))
        except Exception as error:
            raise AssertionError(f"{name} has\n{fragment}") from error


def shell_lines(path: Path) -> Iterator[list[str]]:
    """Words of the commands in blocks of shell, without output, comments and what follows a pipe."""
    for block in blocks(path, "", "sh", "bash"):
        for line in block.splitlines():
            words = line.removeprefix("$ ").removeprefix(".venv/bin/")
            if re.match(r"(volprompt|make) ", words):
                yield shlex.split(words.partition(" | ")[0].partition(" > ")[0], comments=True)


def unknown_words(words: list[str]) -> list[str]:
    """What of a call of `volprompt` does not exist: its verb, or options of it."""
    verb: click.Command = command
    rest = words[1:]
    while isinstance(verb, click.Group) and rest and not rest[0].startswith("-"):
        found = verb.get_command(click.Context(verb), rest[0])
        if found is None:
            return [rest[0]]
        verb, rest = found, rest[1:]
    options = {option for param in verb.params for option in param.opts} | {"--help", "--version"}
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_their_options_exist(name: str) -> None:
    path = REPOSITORY / name
    targets = set(re.findall(r"^([\w.-]+(?:/\w+)?):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    inline = re.findall(r"`(?:\.venv/bin/)?(volprompt [a-z][^`\n]*|make [^`\n]*)`", prose(path))
    calls = [*shell_lines(path), *(text.split() for text in inline)]
    unknown = []
    for words in calls:
        if words[0] == "make":
            unknown += [
                f"make {word}" for word in words[1:] if "=" not in word and word != "TARGET" and word not in targets
            ]
        else:
            unknown += [f"{' '.join(words)}: {word}" for word in unknown_words(words) if not word.isupper()]
    assert unknown == []


def test_the_readme_lists_all_verbs() -> None:
    rows = re.findall(r"^\| `(\w+)", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert [verb for verb in command.list_commands(click.Context(command)) if verb not in rows] == []


def test_the_readme_shows_what_the_first_steps_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its steps with volumes of one's own, up to the first run."""
    text = (REPOSITORY / "README.md").read_text()
    section = text[text.index("## Your own volumes") :].partition("\n## ")[0]
    for number, folder in itertools.product(range(1, 6), ("images", "references")):
        path = tmp_path / "knees" / folder / f"knee_{number:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((24, 48, 48), dtype=np.uint8), np.eye(4)), path)
    (tmp_path / "volprompt").mkdir()
    monkeypatch.chdir(tmp_path / "volprompt")
    ran = []
    for language, block in BLOCK.findall(section):
        if language == "yaml":
            config = Path("config/config.yaml")
            before = config.read_text()
            assert before.count("structures:\n  object: {labels: [1]}\n") == 1
            config.write_text(before.replace("structures:\n  object: {labels: [1]}\n", block))
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *printed = step.splitlines()
            words = shlex.split(line)
            if words[0] == "cd":
                monkeypatch.chdir(words[1])
            elif words[0] == "volprompt":
                assert volprompt(*words[1:]) == 0
                assert "".join(capfd.readouterr()).splitlines() == printed
                ran.append(words[1])
    assert ran == ["init", "sheet", "check"]


def test_the_readme_shows_the_table_of_the_demo() -> None:
    """To two thousandths: another processor rounds otherwise."""
    made = REPOSITORY / "results" / "demo" / "tables" / "medians.md"
    if not made.exists():
        pytest.skip("no results of the demo: run `make demo`")
    lines = [line for line in made.read_text().splitlines() if line.startswith("|")]
    (shown,) = [text for text in blocks(REPOSITORY / "README.md", "") if text.startswith("| Model |")]
    for line, of_readme in zip(lines, shown.splitlines(), strict=True):
        numbers, same = (re.findall(r"\d\.\d{3}", text) for text in (line, of_readme))
        assert [float(number) for number in numbers] == pytest.approx([float(number) for number in same], abs=0.002)
        assert re.sub(r"\d\.\d{3}|\*", "", line) == re.sub(r"\d\.\d{3}|\*", "", of_readme)
