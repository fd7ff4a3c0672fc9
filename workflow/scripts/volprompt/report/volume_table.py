"""The scores of single volumes as compact columns, for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from volprompt.numbers import KINDS
from volprompt.report.plot_style import configurations_of

# Columns of the table of single volumes: name in the score table, heading, kind of number; SIGNED have a sign.
VOLUME_COLUMNS = (
    ("dice", "Dice", "score"),
    ("dice_where_present", "Dice where present", "score"),
    ("dice_prompted", "Dice, prompted slice", "score"),
    ("nsd", "NSD", "score"),
    ("hd95_mm", "HD95 (mm)", "mm"),
    ("assd_mm", "ASSD (mm)", "mm"),
    ("volume_error", "Volume error", "share"),
    ("over_propagation", "Over-propagation", "share"),
)
SIGNED = ("volume_error",)
# Digits that are kept beyond the shown ones, for sorting; the second number where the first would round twice.
SPARE_DIGITS = (2, 6)


def volume_table(scores: pd.DataFrame, scored: Sequence[str]) -> dict[str, Any]:
    """Return the scores of single volumes as compact columns, for the page's script.

    scores: the study's score table; scored: names of the scored structures. The value of configuration c, volume v and
    structure s is at index (c * volumes + v) * structures + s, and None if it is undefined. `status` holds indices into
    `statuses`, or -1 if the score table has no row. Columns without any value are left out.
    """
    structures = ["combined", *scored]
    chosen = scores[scores["structure"].isin(structures)]
    pairs = configurations_of(chosen)
    names = sorted(chosen["volume"].unique())
    statuses = sorted(chosen["status"].unique())
    lookup = {pair: index for index, pair in enumerate(pairs)}
    configuration = np.array(
        [lookup[str(m), str(s)] for m, s in zip(chosen["model"], chosen["scheme"], strict=True)], int
    )
    volume = pd.Categorical(chosen["volume"], categories=names).codes.astype(int)
    structure = pd.Categorical(chosen["structure"], categories=structures).codes.astype(int)
    place = (configuration * len(names) + volume) * len(structures) + structure
    size = len(pairs) * len(names) * len(structures)
    status = np.full(size, -1)
    status[place] = pd.Categorical(chosen["status"], categories=statuses).codes
    columns = []
    for column, heading, kind in VOLUME_COLUMNS:
        if column not in chosen or not chosen[column].notna().any():
            continue
        values = np.full(size, np.nan)
        values[place] = chosen[column].to_numpy(dtype=float, na_value=np.nan)
        style = KINDS[kind]
        kept = compact(values * style.factor, style.digits or 0)
        signed = column in SIGNED
        columns.append(
            {"heading": heading, "digits": style.digits, "unit": style.unit, "signed": signed, "values": kept}
        )
    return {
        "configurations": pairs,
        "volumes": names,
        "structures": structures,
        "statuses": statuses,
        "status": status.tolist(),
        "columns": columns,
    }


def compact(values: np.ndarray, digits: int) -> list[float | int | str | None]:
    """Round values, so that they are shown with digits after the point as if they were not; missing ones are None.

    Infinity is 'inf', since JSON has no number for it.
    """
    return [_compact_value(float(value), digits) for value in values]


def _compact_value(value: float, digits: int) -> float | int | str | None:
    if not np.isfinite(value):
        return None if np.isnan(value) else "inf"
    kept = (round(value, digits + spare) for spare in SPARE_DIGITS)
    rounded = next((one for one in kept if f"{one:.{digits}f}" == f"{value:.{digits}f}"), value)
    if 2 * rounded * 10**digits % 2 == 1:  # halfway between two: the page's language would take the upper one
        rounded = round(value, digits)
    return int(rounded) if rounded.is_integer() else rounded
