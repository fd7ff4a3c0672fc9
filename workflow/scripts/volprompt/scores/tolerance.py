"""The tolerance of the normalized surface Dice (NSD): one for all structures, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from volprompt.columns import SCORED_TOGETHER
from volprompt.numbers import number

# Millimetres: one number for all structures, or by structure.
Tolerance = float | Mapping[str, float]


def tolerance_of(tolerance_mm: Tolerance, structure: str) -> float:
    """Return the tolerance of a structure in millimetres. Raises KeyError where a mapping lacks the structure."""
    return tolerance_mm[structure] if isinstance(tolerance_mm, Mapping) else tolerance_mm


def shared_tolerance(tolerances: Iterable[float]) -> float:
    """Return the tolerance that all have, in millimetres; NaN where there are several."""
    different = set(tolerances)
    return different.pop() if len(different) == 1 else float("nan")


def tolerance_text(scores: pd.DataFrame) -> str:
    """Return at which tolerance the NSD of a score table is, to be put behind the word.

    scores: a score table; of its rows those of single structures with a tolerance are read.

    Returns `at 1 mm`, or with several tolerances `at 1 mm (femur, tibia) and 0.5 mm (cartilage)`; empty where no
    structure has one.
    """
    if "tolerance_mm" not in scores:
        return ""
    known = scores.loc[~scores["structure"].isin(SCORED_TOGETHER), ["structure", "tolerance_mm"]].dropna()
    names_of: dict[float, list[str]] = {}
    for name, millimetres in known.drop_duplicates().itertuples(index=False):
        names_of.setdefault(float(millimetres), []).append(str(name))
    if len(names_of) < 2:
        return "".join(f"at {number(millimetres, 'given')} mm" for millimetres in names_of)
    *first, last = (
        f"{number(millimetres, 'given')} mm ({', '.join(names)})" for millimetres, names in names_of.items()
    )
    return f"at {', '.join(first)} and {last}"
