"""What configurations and experiments cost, beside what they reach."""

from __future__ import annotations

import pandas as pd

from volprompt.tables.configurations import configurations, value_table

# Phases of a volume's work that all schemes of an experiment share, and those that each has to itself.
SHARED_PHASES = ("seconds_read", "seconds_encode")
OWN_PHASES = ("seconds_prompt", "seconds_write")


def cost(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return what each configuration costs: medians over its volumes, and the peak memory of its jobs.

    runs: the run tables of all jobs; scores: the score table. `dice` is the median combined Dice.

    `seconds_shared` is what reading and encoding take, which the other schemes of the experiment use as well;
    `seconds_own` is what the scheme adds to it. `prompts_per_volume` counts what the model is given, `human_prompts`
    what a person would give: a point that is positive for one object and negative for others is one click.
    """
    done = runs[runs["status"] == "ok"]
    done = done.assign(
        seconds_shared=done[list(SHARED_PHASES)].astype(float).sum(axis=1),
        seconds_own=done[list(OWN_PHASES)].astype(float).sum(axis=1),
    )
    grouped = done.groupby(["model", "scheme"], sort=False)
    table = grouped.agg(
        parameters=("parameters", "first"),
        volumes=("volume", "nunique"),
        prompts_per_volume=("prompts", "median"),
        human_prompts_per_volume=("human_prompts", "median"),
        seconds_per_volume=("seconds", "median"),
        seconds_shared=("seconds_shared", "median"),
        seconds_own=("seconds_own", "median"),
        seconds_encode=("seconds_encode", "median"),
        seconds_prompt=("seconds_prompt", "median"),
        slices_per_second=("slices_per_second", "median"),
        peak_memory_mb=("peak_memory_mb", "max"),
        peak_gpu_memory_mb=("peak_gpu_memory_mb", "max"),
        device=("device", "first"),
        precision=("precision", "first"),
    ).reset_index()
    dice = value_table(scores, "combined").median()
    return table.assign(dice=[dice.get(pair, float("nan")) for pair in configurations(table)])


def experiment_cost(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what each experiment costs with each of its models: sums over all volumes, what is shared counted once.

    runs: the run tables of all jobs. `seconds_shared` is reading and encoding, once per volume; `seconds_own` the sum
    over the `schemes` of what each adds; `seconds` their sum, and `seconds_apart` what the schemes would take if
    nothing were shared.
    """
    done = runs[runs["status"] == "ok"]
    shared = done[list(SHARED_PHASES)].astype(float).sum(axis=1)
    done = done.assign(shared=shared, own=done[list(OWN_PHASES)].astype(float).sum(axis=1))
    keys = ["experiment", "model"]
    once = done.groupby([*keys, "volume"], sort=False)["shared"].max().groupby(keys, sort=False).sum()
    grouped = done.groupby(keys, sort=False)
    table = grouped.agg(
        schemes=("scheme", "nunique"),
        volumes=("volume", "nunique"),
        seconds_own=("own", "sum"),
        apart=("shared", "sum"),
    )
    table = table.assign(seconds_shared=once, seconds=once + table["seconds_own"])
    table["seconds_apart"] = table["apart"] + table["seconds_own"]
    return table.reset_index()[
        [*keys, "schemes", "volumes", "seconds_shared", "seconds_own", "seconds", "seconds_apart"]
    ]
