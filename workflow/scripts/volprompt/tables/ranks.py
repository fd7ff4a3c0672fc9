"""Ranks of the configurations, and how stable they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from volprompt.tables.bootstrap import FEWEST, labels_of, resampled_medians, volume_draws
from volprompt.tables.configurations import configurations, dice_table


def ranks(scores: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Rank of each configuration by median combined Dice, 1 the best, and how stable it is under the bootstrap.

    Medians are over the `n` volumes that all configurations have; a configuration without any score has no rank and
    does not shorten the others' list. Every resample draws the same volumes for all. `rank_low, rank_high`: the ranks
    at 2.5 and 97.5 % of the resamples; `first_share`: the share of resamples in which it is first. Equal medians share
    their mean rank, and those that are first together a resample between them. NaN for fewer than FEWEST groups.
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
    labels = labels_of(list(shared.index), groups)
    if len(set(labels)) < FEWEST:
        return table
    counts = volume_draws(labels)
    resampled = np.column_stack([resampled_medians(shared[pair].to_numpy(), counts) for pair in ranked])
    resampled_ranks = stats.rankdata(-resampled, axis=1)
    low, high = np.percentile(resampled_ranks, [2.5, 97.5], axis=0, method="inverted_cdf")  # ranks that occurred
    first = resampled == resampled.max(axis=1, keepdims=True)
    table.loc[places, "rank_low"] = low
    table.loc[places, "rank_high"] = high
    table.loc[places, "first_share"] = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return table
