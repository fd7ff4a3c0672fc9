"""How numbers are written wherever people read them: in the report, in figures, in tables of Markdown and LaTeX.

A kind of number has the same digits and the same unit everywhere, what is missing is a dash, an interval has brackets,
and thousands have commas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class Kind:
    """What numbers of a kind look like.

    digits: after the point; None for four significant ones without zeros at the end.
    factor: by which the number is multiplied.
    unit: behind the number, where no heading names it.
    """

    digits: int | None
    factor: float = 1
    unit: str = ""


KINDS = {
    "score": Kind(3),  # Dice, NSD, predicted IoU, areas, correlations
    "difference": Kind(4),  # of scores
    "effect": Kind(2),
    "share": Kind(1, 100, " %"),
    "percent": Kind(1),
    "mm": Kind(2),
    "ml": Kind(2),
    "seconds": Kind(1),
    "hours": Kind(2),
    "rate": Kind(1),
    "gigabytes": Kind(1, 1e-3, " GB"),  # from megabytes
    "parameters": Kind(1, 1e-6, " M"),
    "count": Kind(0),
    "given": Kind(None),  # settings, spacings, ranks
}


def number(value: Any, kind: str, signed: bool = False) -> str:
    """Write a number: `0.912`, `+0.0120`, `−1.2 %`, `1,234`, `∞`, or a dash. kind: one of KINDS."""
    if value is None or pd.isna(value):
        return MISSING
    style = KINDS[kind]
    sign = "+" if signed else ""
    scaled = value * style.factor
    digits = ("0f" if abs(scaled) >= 1e4 else "4g") if style.digits is None else f"{style.digits}f"
    return f"{scaled:{sign}z,.{digits}}{style.unit}".replace("-", "−").replace("inf", "∞")


def interval(low: Any, high: Any, kind: str, signed: bool = False) -> str:
    """Write an interval: `[0.900, 0.920]`, or a dash."""
    if low is None or pd.isna(low):
        return MISSING
    return f"[{number(low, kind, signed)}, {number(high, kind, signed)}]"


def with_interval(value: Any, low: Any, high: Any, kind: str, signed: bool = False) -> str:
    """Write a number with its interval: `0.912 [0.900, 0.920]`, without the interval if there is none."""
    parts = [number(value, kind, signed), interval(low, high, kind, signed)]
    return " ".join(part for part in parts if part != MISSING) or MISSING


def p_value(p: Any) -> str:
    """Write a p-value: `0.031`, `< 0.001`, or a dash."""
    if p is None or pd.isna(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
