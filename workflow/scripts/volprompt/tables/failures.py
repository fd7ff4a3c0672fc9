"""What failed, and whether that is acceptable."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from volprompt.errors import VolpromptError
from volprompt.files import read_table
from volprompt.tables.configurations import configurations
from volprompt.tables.stored import read_csv
from volprompt.words import at_most, plural

SHOWN_REASONS = 10
# What the score table says where a structure, or all of a volume, could not be segmented.
FAILED = ("failed", "no_prompt")


class FailedVolumes(VolpromptError):
    """More volumes failed than the configuration allows."""


def failures(converted: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what failed and why: a volume as a whole in conversion, or under one model and scheme, or a structure.

    converted: the volume tables of all shards; runs: the run tables of all jobs.
    """
    columns = ["volume", "stage", "model", "scheme", "structure", "reason"]
    of_volumes = converted[converted["status"] == "failed"].assign(stage="convert", model="", scheme="", structure="")
    of_runs = runs[runs["status"] == "failed"].assign(structure="")
    of_structures = pd.DataFrame(
        [
            {**{key: getattr(run, key) for key in ("volume", "model", "scheme")}, "structure": name, "reason": reason}
            for run in runs[runs["status"] == "ok"].itertuples()
            for name, reason in json.loads(run.no_prompt).items()
        ],
        columns=columns,
    ).assign(stage="segment")
    return pd.concat([of_volumes[columns], of_runs[columns], of_structures[columns]], ignore_index=True)


def check_failures(scores: str | Path, failed: str | Path, allowed: float, skip_invalid: bool = False) -> str:
    """Return one line on how the study went.

    scores: the study's score table.
    failed: the study's table of failures.
    allowed: share of the pairs of volume and configuration that may have failed.
    skip_invalid: whether volumes that could not be converted are left out of the count.

    Raises FailedVolumes if more failed, or if nothing but failures is left, whatever is allowed.
    """
    rows = read_table(scores, ["model", "scheme", "volume", "status"])
    rows["failed"] = rows["status"].isin(FAILED)
    pairs = rows.groupby(["model", "scheme", "volume"], sort=False, as_index=False)["failed"].any()
    reasons = read_csv(failed)
    invalid = set(reasons.loc[reasons["stage"] == "convert", "volume"]) if skip_invalid else set()
    pairs = pairs[~pairs["volume"].isin(invalid)]
    if pairs.empty and invalid:
        raise FailedVolumes(f"All {len(invalid)} volumes were skipped; the reasons are in {failed}.")
    share = float(pairs["failed"].mean())
    run_under = plural(len(configurations(pairs)), "configuration")
    count = f"{plural(pairs['volume'].nunique(), 'volume')}, {run_under}"
    if share <= allowed and share < 1:
        skipped = f"; {len(invalid)} more skipped as invalid" if invalid else ""
        return f"{count}, {share:.1%} of the volume-configuration pairs failed{skipped}"
    distinct = reasons.drop_duplicates("reason")
    shown = at_most([f"{row.stage}: {row.reason}" for row in distinct.itertuples()], SHOWN_REASONS)
    limit = f"max_failed_fraction allows {allowed:.1%}" + ", but nothing is left" * (share <= allowed)
    raise FailedVolumes(
        f"{count}: {share:.1%} of the volume-configuration pairs failed; {limit}.\n"
        + "\n".join(f"  - {each}" for each in shown)
        + f"\nEverything else is done and kept; all reasons are in {failed}. Correct or remove these volumes and run "
        f"again{', or raise max_failed_fraction' * (share > allowed)}."
    )
