"""Score and run tables as the jobs write them, for the tests of the study's tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from volprompt.columns import SCORE_COLUMNS
from volprompt.tables.design import TableDesign

NAN = float("nan")
COMBINED_ALONE = TableDesign(scored=[])
FEMUR = TableDesign(scored=["femur"])


def scored(model: str, scheme: str, dice: list[float], structure: str = "combined", **more: Any) -> pd.DataFrame:
    """Rows of a score table for the volumes knee0, knee1 and so on; every other score is NaN unless `more` gives it."""
    volumes = [f"knee{index}" for index in range(len(dice))]
    named = {"experiment": "e", "model": model, "scheme": scheme, "structure": structure, "status": "ok"}
    numbers = {name: NAN for name, kind in SCORE_COLUMNS.items() if kind == "float64" and name != "dice"}
    return pd.DataFrame({"volume": volumes, "dice": dice}).assign(**{**numbers, **named, **more})


def ran(model: str, scheme: str, seconds: list[float], parameters: int = 1000, **more: Any) -> pd.DataFrame:
    """Rows of a run table for the volumes knee0, knee1 and so on."""
    volumes = [f"knee{index}" for index in range(len(seconds))]
    named = {"experiment": "e", "model": model, "scheme": scheme, "status": "ok", "parameters": parameters, **more}
    return pd.DataFrame({"volume": volumes, "seconds": seconds}).assign(**named)


def knees(groups: list[str]) -> dict[str, str]:
    """The groups of knee0, knee1 and so on."""
    return {f"knee{index}": group for index, group in enumerate(groups)}
