"""How scores rise with correction clicks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from volprompt.tables.bootstrap import subjects_of
from volprompt.tables.intervals import interval_of_median

# Dice in hundredths that are looked for in the rounds.
TARGETS = (85, 90, 95)
COLUMNS = [
    *("model", "scheme", "structure", "round", "n", "groups", "interval", "prompts"),
    *("dice", "dice_low", "dice_high", "nsd", "nsd_low", "nsd_high", "dice_auc", "nsd_auc"),
    *(name for target in TARGETS for name in (f"rounds_to_{target}", f"never_{target}")),
]


def corrections(
    rounds: pd.DataFrame, clicks: Mapping[str, int], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row per model, scheme, structure and round.

    rounds: the tables of rounds of all jobs.
    clicks: of each scheme with corrections, the number of its rounds.
    groups: the group (subject) of each volume.

    `n`: volumes with a Dice in every round. `prompts`, `dice` and `nsd` are medians over them in this round, with
    intervals by `interval_of_median`. A volume that ended early keeps its last values. The other columns are of the
    whole curve, and the same in each of its rows: `dice_auc` and `nsd_auc`, the median area below a volume's curve
    (trapezoid over the rounds, divided by their number: 1 is perfect); `rounds_to_85` and so on, the median number of
    rounds until the Dice is 0.85, with `never_85` volumes that do not reach it: they count as more than all rounds,
    and a median among them is written `> 5`.
    """
    rows: list[dict[str, Any]] = []
    for (model, scheme, structure), chosen in rounds.groupby(["model", "scheme", "structure"], sort=False):
        last = clicks.get(str(scheme), int(chosen["round"].max()))
        named = {"model": model, "scheme": scheme, "structure": structure}
        curves = {name: curves_of(chosen, name, last) for name in ("prompts", "dice", "nsd")}
        defined = curves["dice"].notna().all(axis=1)
        curves = {name: table[defined] for name, table in curves.items()}
        subjects = subjects_of(list(map(str, curves["dice"].index)), groups)
        whole = _of_whole_curve(curves, last)
        for number in range(last + 1):
            row = {**named, "round": number, "n": int(defined.sum()), "prompts": curves["prompts"][number].median()}
            for name in ("dice", "nsd"):
                values = curves[name][number]
                interval = interval_of_median(values.to_numpy(), subjects)
                row |= {name: values.median(), **interval.columns(f"{name}_")}
                row |= {"groups": interval.groups, "interval": interval.kind}
            rows.append(row | whole)
    return pd.DataFrame(rows, columns=COLUMNS)


def curves_of(rounds: pd.DataFrame, column: str, last: int) -> pd.DataFrame:
    """Return a column by volume (rows) and round 0 to `last`; a volume that ended early keeps its last value."""
    table = rounds.pivot(index="volume", columns="round", values=column).astype(float)
    return table.reindex(columns=range(last + 1)).ffill(axis=1)


def _of_whole_curve(curves: Mapping[str, pd.DataFrame], last: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("dice", "nsd"):
        areas = np.trapezoid(curves[name].to_numpy(), axis=1) / last
        found[f"{name}_auc"] = float(np.median(areas)) if len(areas) else float("nan")
    for target in TARGETS:
        reached = curves["dice"].to_numpy() >= target / 100
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), np.inf)
        found[f"never_{target}"] = int(np.isinf(first).sum())
        found[f"rounds_to_{target}"] = in_rounds(float(np.median(first)), last) if len(first) else ""
    return found


def in_rounds(number: float, last: int) -> str:
    """Write a number of rounds, or `> 5` for one beyond the last."""
    return f"> {last}" if np.isinf(number) else f"{number:g}"
