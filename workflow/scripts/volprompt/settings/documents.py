"""A file of a configuration: what it holds, and where and how each value is written.

Snakemake reads these files by itself. What it hands over shows no longer that a key was there twice, how a value was
written before YAML turned it into another one (`010` into 8, `no` into false), or on which line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from volprompt.errors import VolpromptError
from volprompt.settings.values import UNCLEAR_NUMBER

Place = tuple[Any, ...]  # keys (as they are written) and indexes, from the outermost one on

MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MOST_PLACES = 20_000  # anchors can make a small file stand for any number of values


class DocumentError(VolpromptError):
    """A file that is no configuration."""


@dataclass(frozen=True)
class Written:
    """How a value is written.

    file, line: where its key stands, or an item of a list itself.
    text: of a value that YAML reads as something else than text; else empty.
    """

    file: str
    line: int
    text: str = ""


class Miswritten(NamedTuple):
    """Something that YAML reads as something else than people would.

    fault: one line with file and line.
    settles: whether no more is to be said of the value, since it is not what was meant.
    """

    place: Place
    fault: str
    settles: bool


@dataclass
class Document:
    """One file of a configuration.

    values: as YAML reads them.
    keys: texts of the keys that YAML reads as something else, by the place of their section and what YAML reads.
    """

    file: str
    values: dict[Any, Any]
    written: dict[Place, Written] = field(default_factory=dict)
    keys: dict[tuple[Place, Any], str] = field(default_factory=dict)
    miswritten: list[Miswritten] = field(default_factory=list)


def read_document(path: str | Path) -> Document:
    """Read a file of a configuration as Snakemake does: JSON, or else YAML. Raises DocumentError with one line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        values, is_json = _load(text)
        if isinstance(values, dict):
            document = Document(_shown(path), values)
            _Walk(document, is_json).whole(text)
            return document
    except OSError as error:
        remedy = "correct the path, or go to the folder of the study"
        fault = f"cannot be read ({error.strerror}); expected a configuration: {remedy}"
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        fault = f"is not valid YAML ({' '.join(str(error).split())}): correct the file"
    else:
        fault = f"holds a {type(values).__name__}; expected keys such as `volumes` and `structures`"
    raise DocumentError(f"{path}: {fault}")


def repeated_keys(path: str | Path) -> list[str]:
    """A line for each key of a YAML file that is there twice in one section, where YAML takes the last one."""
    return [item.fault for item in read_document(path).miswritten if not item.settles]


def _load(text: str) -> tuple[Any, bool]:
    """The values of a text, and whether it is JSON."""
    try:
        return json.loads(text), True
    except ValueError:
        values = yaml.safe_load(text)
        return {} if values is None else values, False


def _shown(path: str | Path) -> str:
    """A path as people would write it: relative below the working directory."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)


class _Walk:
    """One walk over the nodes of a document, which notes how everything is written."""

    def __init__(self, document: Document, is_json: bool) -> None:
        self.document = document
        self.is_json = is_json
        self.open: list[yaml.Node] = []  # the nodes around the present one, since an anchor can hold itself

    def whole(self, text: str) -> None:
        """Walk over the whole document."""
        # JSON is YAML, but for tabs, which can only be space between its values.
        self.loader = yaml.SafeLoader(text.replace("\t", " ") if self.is_json else text)
        try:
            node = self.loader.get_single_node()
            if node is not None:
                self._node(node, ())
        finally:
            self.loader.dispose()

    def _node(self, node: yaml.Node, place: Place) -> None:
        if node in self.open:
            return
        if len(self.document.written) > MOST_PLACES:
            raise DocumentError(
                f"{self.document.file}: stands for more than {MOST_PLACES} values; write out what its anchors repeat"
            )
        self.open.append(node)
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note(item, (*place, index), item.start_mark.line)
                self._node(item, (*place, index))
        self.open.pop()

    def _mapping(self, node: yaml.MappingNode, place: Place) -> None:
        own: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                every = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for merged in reversed(every):  # the first one wins
                    self._node(merged, place)
                continue
            key = self.loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            here = (*place, key if isinstance(key, str) else str(key_node.value))
            if key in own:
                first = own[key][0].start_mark.line + 1
                self._fault(here, line, f"is there already in line {first}; remove one of the two", settles=False)
            elif not isinstance(key, str):
                self.document.keys[place, key] = here[-1]
                self._fault(here, line, name_turned(here[-1], key))
            own[key] = key_node, value_node
        for key, (key_node, value_node) in own.items():
            here = (*place, self.document.keys.get((place, key), key))
            self._note(value_node, here, key_node.start_mark.line)
            self._node(value_node, here)

    def _note(self, node: yaml.Node, place: Place, line: int) -> None:
        text = self._turned(node)
        self.document.written[place] = Written(self.document.file, line + 1, text)
        if node.tag in NUMBERS and UNCLEAR_NUMBER.fullmatch(text):
            value = self.loader.construct_object(node)
            self._fault(
                place,
                node.start_mark.line + 1,
                f"is written `{text}`, which YAML reads as {value}; write a number without leading zeros and `:`, "
                f"or a text in quotes: '{text}'",
            )

    def _fault(self, place: Place, line: int, text: str, settles: bool = True) -> None:
        fault = f"{self.document.file} line {line}: {dotted(place)}: {text}"
        self.document.miswritten.append(Miswritten(place, fault, settles))

    def _turned(self, node: yaml.Node) -> str:
        """The text of a node that YAML reads as something else, a number or a truth value, say; else empty."""
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and not self.is_json
        return str(node.value) if plain and node.tag != TEXT else ""


def name_turned(text: str, key: object) -> str:
    """What to say of a key that YAML reads as something else than text."""
    return f"the name `{text}` is read by YAML as {in_words(key)}; put it into quotes: '{text}'"


def in_words(value: object) -> str:
    """What YAML has made of something: `the number 8`, `true`, `nothing (null)`, `the date 2024-01-01`."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"the {'number' if isinstance(value, int | float) else type(value).__name__} {value}"


def dotted(place: Iterable[Any]) -> str:
    """A place as messages write it: `structures.femur.labels.0`."""
    return ".".join(map(str, place))
