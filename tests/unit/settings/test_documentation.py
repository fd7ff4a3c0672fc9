"""config/README.md has every key with the type and the default that the configuration's types give it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from volprompt.settings.config import EXECUTION_SETTINGS, Settings

README = Path(__file__).resolve().parents[3] / "config" / "README.md"
SCHEMA = Settings.model_json_schema()
# Headings of the tables of keys, and the types that they describe.
SECTIONS = {
    "Top level": "Settings",
    "`frames`": "Frames",
    "`references`": "References",
    "`structures`": "Structure",
    "`schemes`": "Scheme",
    "Noise": "Noise",
    "Corrections": "Corrections",
    "`models`": "Model",
    "`experiments`": "Experiment",
    "`inference`": "Inference",
    "`scores`": "Scores",
    "`comparisons`": "Comparisons",
    "`report`": "Report",
}
# Words that say more than the type does.
TEXTS = {"path", "glob", "volume"}


def tables_of(heading: str) -> list[dict[str, list[str]]]:
    """The tables of keys below a heading: key -> its type, default, meaning and example."""
    text = README.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^###? {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    tables = re.findall(r"^\| key \|.*\n\|---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    rows = [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()] for table in tables]
    return [{cells[0].strip("` "): cells[1:] for cells in table} for table in rows]


def keys_of(heading: str) -> dict[str, list[str]]:
    return {key: cells for table in tables_of(heading) for key, cells in table.items()}


def properties(name: str) -> dict[str, Any]:
    return (SCHEMA if name == "Settings" else SCHEMA["$defs"][name])["properties"]


def required(name: str) -> list[str]:
    return (SCHEMA if name == "Settings" else SCHEMA["$defs"][name]).get("required", [])


def limits(schema: dict[str, Any]) -> str:
    """`from 0 to 1`, `from 1 on`, `above 0`, with a multiple behind."""
    text = ""
    if "maximum" in schema:
        text = f" from {schema['minimum']} to {schema['maximum']}"
    elif "minimum" in schema:
        text = f" from {schema['minimum']} on"
    elif "exclusiveMinimum" in schema:
        text = f" above {schema['exclusiveMinimum']}"
    return text + (f", multiple of {schema['multipleOf']}" if "multipleOf" in schema else "")


def in_words(schema: dict[str, Any]) -> str:
    """A type of the JSON schema in the words of the tables."""
    if "anyOf" in schema:
        *first, last = (in_words(choice) for choice in schema["anyOf"])
        lists = [choice for choice in first if choice.startswith("list of them")]
        plain = [choice for choice in first if choice not in lists]
        return ", or ".join([", ".join(plain), *(f"a {text}" for text in lists), last])
    if "oneOf" in schema:
        return f"{in_words(schema['oneOf'][0])}, or one for each structure"
    if "$ref" in schema or schema.get("type") == "object":
        return "section"
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(str(value).lower() if isinstance(value, bool) else f"`{value}`" for value in values)
    if schema["type"] == "array":
        if "prefixItems" in schema:
            return "two names" if schema["prefixItems"][0]["type"] == "string" else "two numbers"
        items = schema["items"]
        ending = ", not empty" if schema.get("minItems") and items.get("type") == "string" else ""
        if items.get("type") == "integer":
            return f"list of integers{limits(items)}{ending}"
        return f"list of {'them' if 'enum' in items or 'anyOf' in items else 'names'}{ending}"
    words = {"string": "text", "boolean": "true, false", "null": "null", "integer": "integer", "number": "number"}
    return words[schema["type"]] + limits(schema)


def without_remark(cell: str) -> str:
    """A cell without what stands in round brackets at its end."""
    return re.sub(r" \([^()]*\)$", "", cell)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_in_order(heading: str) -> None:
    assert list(keys_of(heading)) == list(properties(SECTIONS[heading]))


@pytest.mark.parametrize("heading", SECTIONS)
def test_types_and_defaults_are_those_of_the_schema(heading: str) -> None:
    name = SECTIONS[heading]
    for key, schema in properties(name).items():
        type_, default = (without_remark(cell) for cell in keys_of(heading)[key][:2])
        words = [word if word not in TEXTS else "text" for word in type_.split(", ")]
        assert ", ".join(words) == in_words(schema), f"{heading} {key}: type"
        if key in required(name):
            assert default == "required", f"{heading} {key}: default"
        elif in_words(schema) == "section":
            assert default == "see below", f"{heading} {key}: default"
        elif default == "empty":
            assert schema["default"] == "", f"{heading} {key}: default"
        else:
            assert yaml.safe_load(default.strip("`")) == json.loads(json.dumps(schema["default"])), f"{heading} {key}"


def test_settings_that_rerun_nothing_have_a_table_of_their_own() -> None:
    reruns, reruns_nothing = tables_of("`inference`")
    assert set(reruns_nothing) == EXECUTION_SETTINGS
    assert not set(reruns) & EXECUTION_SETTINGS
