"""Ranks of the configurations, and how stable they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.tables.bootstrap import FEWEST, resampled_medians, subjects_of, volume_draws
from volprompt.tables.configurations import configurations, dice_table


def ranks(scores: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the rank of each configuration by median combined Dice, 1 for the best, and its stability.

    scores: the score table.
    groups: the group (subject) of each volume.

    Medians are over the `n` volumes that all configurations have. A configuration without any score has no rank, and
    its missing volumes do not count. Every resample draws the same volumes for all configurations. `rank_low` and
    `rank_high` are the ranks at 2.5 and 97.5 % of the resamples, `first_share` the share of resamples in which the
    configuration is first; NaN for fewer than FEWEST subjects. Equal medians share their mean rank, and configurations
    that are first together share the resample.
    """
    dice = dice_table(scores, "combined")
    ranked = [pair for pair in dice.columns if dice[pair].notna().any()]
    shared = dice[ranked].dropna()
    table = pd.DataFrame(configurations(scores), columns=["model", "scheme"]).assign(n=len(shared))
    for column in ("rank", "rank_low", "rank_high", "first_share"):
        table[column] = float("nan")
    if shared.empty:
        return table
    places = [index for index, pair in enumerate(dice.columns) if pair in set(ranked)]
    table.loc[places, "rank"] = stats.rankdata(-shared.median().to_numpy())
    subjects = subjects_of(list(shared.index), groups)
    if len(set(subjects)) < FEWEST:
        return table
    counts = volume_draws(subjects)
    resampled = np.column_stack([resampled_medians(shared[pair].to_numpy(), counts) for pair in ranked])
    resampled_ranks = stats.rankdata(-resampled, axis=1)
    low, high = np.percentile(resampled_ranks, [2.5, 97.5], axis=0, method="inverted_cdf")  # ranks that occurred
    first = resampled == resampled.max(axis=1, keepdims=True)
    table.loc[places, "rank_low"] = low
    table.loc[places, "rank_high"] = high
    table.loc[places, "first_share"] = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return table
