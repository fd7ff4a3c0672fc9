"""The labels of an nnU-Net data set, as lines for the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from volprompt.columns import SCORED_TOGETHER, reserved_names
from volprompt.settings.values import LONGEST_NAME
from volprompt.study.layouts.found import LayoutError, clean_name

BACKGROUND, IGNORE = "background", "ignore"


def read_labels(description: Path) -> tuple[list[str], list[int]]:
    """The configuration's structures from dataset.json, as lines, and the numbers of labels that count nowhere.

    Names that no structure can have are changed, with a comment at the end of the line. Raises LayoutError.
    """
    labels = _numbers_of_labels(description)
    ignored = [number for name, numbers in labels.items() if name.lower() == IGNORE for number in numbers]
    labels = {name: numbers for name, numbers in labels.items() if name.lower() not in (BACKGROUND, IGNORE) and numbers}
    lines = []
    for original, (name, reason) in _structure_names(labels).items():
        comment = f"  # {json.dumps(original, ensure_ascii=False)} in {description.name}: {reason}" if reason else ""
        lines.append(f"  {_as_key(name)}: {{labels: {labels[original]}}}{comment}")
    return lines, ignored


def _numbers_of_labels(description: Path) -> dict[str, list[int]]:
    """Names and numbers without 0, from `name: number or numbers` (nnU-Net 2) or `number: name` (1)."""
    try:
        labels = json.loads(description.read_text(encoding="utf-8"))["labels"]
        if labels and all(isinstance(value, str) for value in labels.values()):
            pairs: list[tuple[str, Any]] = [(value, int(number)) for number, value in labels.items()]
        else:
            pairs = list(labels.items())
        lists = [(name, value if isinstance(value, list) else [value]) for name, value in pairs]
        if wrong := [one for _, numbers in lists for one in numbers if type(one) is not int or one < 0]:
            raise ValueError(f"a label is {wrong[0]!r}; expected a whole number from 0 on")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise LayoutError(f"{description}: has no readable `labels` ({type(error).__name__}: {error})") from None
    numbers: dict[str, list[int]] = {}
    for name, values in lists:  # of nnU-Net 1 two numbers can have one name
        numbers[name] = list(dict.fromkeys([*numbers.get(name, []), *(one for one in values if one)]))
    return numbers


def _structure_names(labels: Mapping[str, list[int]]) -> dict[str, tuple[str, str]]:
    """For each label the name of its structure, and why it is another one; no two are the same, whatever their case."""
    cleaned = {original: clean_name(original) for original in labels}
    taken = {name.lower() for name in reserved_names(cleaned.values())} | set(SCORED_TOGETHER)
    names: dict[str, tuple[str, str]] = {}
    # A label that can keep its name comes before those that would get the same one.
    for original in sorted(labels, key=lambda name: cleaned[name] != name):
        name, reason = cleaned[original], ""
        if not name:
            name, reason = _numbered("label", labels[original]), "no letter of it can be part of a file's name"
        elif name.lower() in taken:
            reason = "the name is taken by a score or a column of the tables"
            if any(name.lower() == other.lower() for other, _ in names.values()):
                reason = f"another label is called {name} already"
            name = _numbered(name, labels[original])
        elif name != original:
            reason = "some of it cannot be part of a file's name"
        while name.lower() in taken:
            name = _numbered(name, labels[original])
        taken.add(name.lower())
        names[original] = name, reason
    return {original: names[original] for original in labels}


def _numbered(name: str, numbers: list[int]) -> str:
    ending = "".join(f"_{number}" for number in numbers)[-LONGEST_NAME // 2 :]
    return name[: LONGEST_NAME - len(ending)] + ending


def _as_key(name: str) -> str:
    """A name as YAML reads it back: in quotes where it would become a number or a truth value."""
    return name if yaml.safe_load(f"{{{name}: 0}}") == {name: 0} else f"'{name}'"
