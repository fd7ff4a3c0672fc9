"""What a configuration costs, beside what it reaches."""

from __future__ import annotations

import pandas as pd

from volprompt.tables.configurations import configurations, dice_table


def cost(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return what each configuration costs: medians over its volumes, and the peak memory of its jobs.

    runs: the run tables of all jobs; scores: the score table. `dice` is the median combined Dice.
    """
    done = runs[runs["status"] == "ok"]
    grouped = done.groupby(["model", "scheme"], sort=False)
    table = grouped.agg(
        parameters=("parameters", "first"),
        volumes=("volume", "nunique"),
        prompts_per_volume=("prompts", "median"),
        seconds_per_volume=("seconds", "median"),
        seconds_encode=("seconds_encode", "median"),
        seconds_prompt=("seconds_prompt", "median"),
        slices_per_second=("slices_per_second", "median"),
        peak_memory_mb=("peak_memory_mb", "max"),
        peak_gpu_memory_mb=("peak_gpu_memory_mb", "max"),
        device=("device", "first"),
        precision=("precision", "first"),
    ).reset_index()
    dice = dice_table(scores, "combined").median()
    return table.assign(dice=[dice.get(pair, float("nan")) for pair in configurations(table)])
