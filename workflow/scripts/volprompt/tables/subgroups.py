"""Medians by subgroup: the volumes that share a value of a covariate."""

from __future__ import annotations

from typing import Any

import pandas as pd

from volprompt.tables.bootstrap import subjects_of
from volprompt.tables.configurations import configurations, rows_of
from volprompt.tables.design import TableDesign
from volprompt.tables.medians import SUMMARY_COLUMNS, summarize

# A covariate with more different values, such as an age, has no subgroups.
MOST_LEVELS = 12
COLUMNS = ["covariate", "level", "model", "scheme", "structure", "score", *SUMMARY_COLUMNS]


def subgroups(scores: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return median Dice and NSD by covariate, level, model, scheme and structure, with intervals.

    scores: the score table; design: what of the configuration reaches the tables. Volumes without a value of a
    covariate are in none of its subgroups; a covariate with more than MOST_LEVELS values has none.
    """
    done = scores[scores["status"] == "ok"]
    rows: list[dict[str, Any]] = []
    for covariate, text_of in design.covariates.items():
        levels = sorted(set(text_of.values()), key=_by_number)
        for level in levels if len(levels) <= MOST_LEVELS else []:
            within = done[done["volume"].map(text_of) == level]
            for model, scheme in configurations(scores):
                chosen = rows_of(within, model, scheme)
                for structure in [*design.scored, "combined"]:
                    part = chosen[chosen["structure"] == structure]
                    subjects = subjects_of(list(part["volume"]), design.groups)
                    named = {"covariate": covariate, "level": level, "model": model, "scheme": scheme}
                    for score in ("dice", "nsd"):
                        row = {**named, "structure": structure, "score": score}
                        rows.append(row | summarize(part[score], subjects))
    return pd.DataFrame(rows, columns=COLUMNS)


def _by_number(level: str) -> tuple[bool, float, str]:
    """Return the key by which levels are sorted: numbers by size, then texts."""
    try:
        return False, float(level), level
    except ValueError:
        return True, 0.0, level
