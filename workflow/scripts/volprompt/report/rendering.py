"""The templates of the page, and how they write values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from volprompt.columns import Column, column_of, heading_of
from volprompt.numbers import MISSING, interval, number, p_value
from volprompt.palette import style_sheet
from volprompt.report.facts import flow

TEMPLATES = Path(__file__).parent / "templates"
# The viewer's script, in the order in which a file uses those before it.
VIEWER = ("palette.js", "unpacking.js", "cuts.js", "marks.js", "solids.js", "viewer.js")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries, with None for missing values."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def page_environment() -> Environment:
    """Make the environment of the templates, with the filters that write values."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["asset"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.globals["palette"] = lambda: Markup(style_sheet())
    environment.globals |= {"cell": cell, "interval": interval, "missing": MISSING, "viewer_script": viewer_script}
    environment.filters |= {
        "flow": flow,
        "number": number,
        "p": p_value,
        "heading": heading_of,
        "breakable": breakable,
    }
    return environment


def viewer_script() -> Markup:
    """Put the files of the viewer's script together, in a block that keeps their names from other scripts."""
    parts = [(TEMPLATES / "viewer" / name).read_text(encoding="utf-8") for name in VIEWER]
    return Markup('"use strict";\n{{\n{}}}').format(Markup("".join(parts)))


def breakable(name: str) -> Markup:
    """Return a name that a narrow cell can break after its underscores, hyphens and slashes."""
    return Markup(re.sub(r"(?<=[_/-])(?=[^_/-])", "<wbr>", str(escape(name))))


def cell(row: Mapping[str, Any], structure: str, columns: Sequence[Column]) -> str:
    """Return the value of a column, `0.912`, or of two that are the ends of an interval, `[0.900, 0.920]`.

    row: of the median table; structure: whose values; columns: a group of `shown_together`.
    """
    values = [row.get(column_of(structure, column.name)) for column in columns]
    kind = columns[0].kind
    return number(values[0], kind) if len(values) == 1 else interval(values[0], values[1], kind)
