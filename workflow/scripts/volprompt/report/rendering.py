"""The templates of the page, and how they write values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from volprompt.columns import Column, column_of, heading_of
from volprompt.report.facts import flow
from volprompt.tables.typeset import p_text

TEMPLATES = Path(__file__).parent / "templates"
# The viewer's script, in the order in which a file uses those before it.
VIEWER = ("unpacking.js", "cuts.js", "marks.js", "solids.js", "viewer.js")


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
    environment.globals["viewer_script"] = viewer_script
    environment.globals["cell"] = cell
    environment.filters |= {
        "fixed": fixed,
        "flow": flow,
        "signed": signed,
        "share": share,
        "p": p_value,
        "rank": rank,
        "millions": millions,
        "heading": heading_of,
    }
    return environment


def viewer_script() -> Markup:
    """Put the files of the viewer's script together, in a block that keeps their names from other scripts."""
    parts = [(TEMPLATES / "viewer" / name).read_text(encoding="utf-8") for name in VIEWER]
    return Markup('"use strict";\n{{\n{}}}').format(Markup("".join(parts)))


def fixed(value: float | None, digits: int = 3) -> str:
    """Return `0.912`, `∞`, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("inf", "∞")


def cell(row: Mapping[str, Any], structure: str, columns: Sequence[Column]) -> str:
    """Return the values of columns that share a cell: `0.9120`, or `0.9000 – 0.9200` for an interval.

    row: of the median table; structure: whose values; columns: a group of `shown_together`.
    """
    return " – ".join(fixed(row.get(column_of(structure, column.name)), column.digits) for column in columns)


def signed(value: float | None, digits: int = 3) -> str:
    """Return `+0.012`, `−0.012`, or a dash."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def share(value: float | None, digits: int = 1) -> str:
    """Return `12.3 %`, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def p_value(value: float | None) -> str:
    """Return `0.012`, `< 0.001`, or a dash."""
    return "–" if value is None else p_text(value)


def rank(value: float | None) -> str:
    """Return `3`, `2.5` for a shared rank, or a dash."""
    return "–" if value is None else f"{value:g}"


def millions(value: float | None) -> str:
    """Return `93.7 M`, or a dash."""
    return "–" if value is None else f"{value / 1e6:.1f} M"
