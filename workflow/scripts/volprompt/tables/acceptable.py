"""The share of slices that are acceptable as they are, without a correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from volprompt.files import read_table
from volprompt.tables.bootstrap import FEWEST, bootstrap_percentiles, subjects_of, volume_draws
from volprompt.tables.stored import Experiments, current_rows

ACCEPTABLE_COLUMNS = ["model", "scheme", "structure", "n", "groups", "slices", "acceptable_share", "low", "high"]
KEYS = ["model", "scheme", "structure"]


def acceptable_slices(
    paths: Sequence[str | Path],
    acceptable_dice: float,
    groups: Mapping[str, str] | None = None,
    experiments: Experiments | None = None,
) -> pd.DataFrame:
    """Return the share of acceptable slices per configuration and structure.

    paths: the slice tables.
    acceptable_dice: a slice is acceptable whose Dice is at least this.
    groups: the group (subject) of each volume.
    experiments: as in `current_rows`.

    `slices` counts those of the `n` volumes on which reference or prediction has a pixel, and `acceptable_share` is the
    share of them that are acceptable, with the 95 % percentile-bootstrap interval over subjects; NaN for fewer than
    FEWEST. A slice on which only one of the two has pixels has a Dice of 0.
    """
    counted = [count_slices(path, acceptable_dice, experiments) for path in paths]
    volumes = pd.concat([part for part in counted if len(part)] or counted[:1], ignore_index=True)
    rows = []
    for names, chosen in volumes.groupby(KEYS, sort=False):
        slices, acceptable = chosen["slices"].to_numpy(float), chosen["acceptable"].to_numpy(float)
        subjects = subjects_of(list(chosen["volume"]), groups)
        low = high = float("nan")
        groups_here = len(set(subjects))
        if groups_here >= FEWEST:
            draws = volume_draws(subjects).astype(float)
            low, high = np.percentile(draws @ acceptable / (draws @ slices), bootstrap_percentiles(groups_here))
        rows.append([*names, len(chosen), groups_here, int(slices.sum()), acceptable.sum() / slices.sum(), low, high])
    return pd.DataFrame(rows, columns=ACCEPTABLE_COLUMNS)


def count_slices(path: str | Path, acceptable_dice: float, experiments: Experiments | None) -> pd.DataFrame:
    """Return `slices` and `acceptable` of every volume of a slice table, without those that show nothing."""
    columns = [*KEYS, "volume", "intersection", "predicted", "reference"]
    table = current_rows(read_table(path, columns), path, experiments)
    total = table["predicted"] + table["reference"]
    shown = table[total > 0]
    # Without division, so that a Dice of exactly the limit counts.
    acceptable = 2 * shown["intersection"] >= acceptable_dice * total[total > 0] - 1e-9
    counts = shown.assign(slices=1, acceptable=acceptable.astype(int))
    return counts.groupby([*KEYS, "volume"], sort=False, as_index=False)[["slices", "acceptable"]].sum()
