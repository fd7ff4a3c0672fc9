"""Ranks of the configurations, and how stable they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.tables.bootstrap import FEWEST, resampled_medians, subjects_of, volume_draws
from volprompt.tables.configurations import comparable, value_table


def ranks(
    scores: pd.DataFrame, groups: Mapping[str, str] | None = None, repetitions: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return the rank of each configuration by median combined Dice, 1 for the best, and its stability.

    scores: the score table.
    groups: the group (subject) of each volume.
    repetitions: the common name of schemes that differ only in the seed of their noise.

    Medians are over the `n` volumes (of `groups` subjects) that all ranked configurations have; `own_n` are a
    configuration's own. A configuration that is not `comparable` has no rank. Every resample draws the same volumes
    for all configurations. `rank_low` and `rank_high` are the ranks at 2.5 and 97.5 % of the resamples, `first_share`
    the share of resamples in which the configuration is first; NaN for fewer than FEWEST subjects. Equal medians share
    their mean rank, and configurations that are first together share the resample.
    """
    dice = value_table(scores, "combined", repetitions=repetitions)
    ranked = comparable(dice)
    shared = dice[ranked].dropna()
    subjects = subjects_of(list(shared.index), groups)
    table = pd.DataFrame(list(dice.columns), columns=["model", "scheme"])
    table = table.assign(n=len(shared), groups=len(set(subjects)), own_n=dice.notna().sum().to_numpy())
    for column in ("rank", "rank_low", "rank_high", "first_share"):
        table[column] = float("nan")
    if shared.empty:
        return table
    places = [index for index, pair in enumerate(dice.columns) if pair in set(ranked)]
    table.loc[places, "rank"] = stats.rankdata(-shared.median().to_numpy())
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
