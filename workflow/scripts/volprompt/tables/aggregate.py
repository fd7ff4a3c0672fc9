"""The tables of the whole study, made from what the jobs wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from volprompt.files import write_csv, write_table, write_text
from volprompt.identity import NO_SETTINGS, digest_of_intact, write_identity
from volprompt.logs import logger
from volprompt.tables.comparisons import comparisons
from volprompt.tables.confidence import confidence, expected_dice
from volprompt.tables.corrections import corrections
from volprompt.tables.cost import cost
from volprompt.tables.decay import decay
from volprompt.tables.failures import failures
from volprompt.tables.medians import medians
from volprompt.tables.propagation import propagation
from volprompt.tables.ranks import ranks
from volprompt.tables.stored import (
    Experiments,
    job_name,
    read_rounds,
    read_runs,
    read_scores,
    read_tracked_slices,
    score_metadata,
    table_origin,
)
from volprompt.tables.typeset import comparisons_latex, comparisons_markdown, latex, markdown
from volprompt.volumes.converted import read_volume_table


def aggregate(
    *,
    scores: Sequence[str | Path],
    slices: Sequence[str | Path],
    masks: Sequence[str | Path],
    volumes: Sequence[str | Path],
    scored: Sequence[str],
    every_slice_schemes: Collection[str],
    groups: Mapping[str, str],
    tables: str | Path,
    rounds: Sequence[str | Path] = (),
    correction_clicks: Mapping[str, int] | None = None,
    acceptable_dice: float = 0.8,
    experiments: Experiments | None = None,
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the study's tables into the folder `tables`, and their identity.

    scores: the score tables, in the order in which models and schemes are to appear.
    slices: the slice tables.
    masks: folders with a run.parquet.
    volumes: folders of converted shards.
    scored: names of the scored structures.
    every_slice_schemes: names of the schemes that are prompted on every slice.
    groups: the group (subject) of each volume that has one.
    tables: the folder to write to.
    rounds: the tables of rounds of corrections.
    correction_clicks: rounds of each scheme with corrections.
    acceptable_dice: a combined Dice below it counts as bad.
    experiments: the schemes of each, so that schemes that were removed are left out.
    identity: the settings that reach the tables.

    Writes scores.parquet; medians and comparisons as CSV, Parquet, Markdown and LaTeX; ranks.csv, decay.csv,
    propagation.csv, corrections.csv, confidence.csv, expected_dice.csv, cost.csv and failures.csv.
    """
    tables = Path(tables)
    made_from = {job_name(path): digest_of_intact(path) for path in scores}
    score_table = read_scores(scores, experiments)
    runs = read_runs(masks, experiments)
    converted = pd.concat([read_volume_table(folder) for folder in volumes], ignore_index=True)
    median_table = medians(score_table, runs, scored, groups)
    compared = comparisons(score_table, groups)
    write_table(score_table, tables / "scores.parquet", score_metadata(scores))
    for name, table in (("medians", median_table), ("comparisons", compared)):
        write_csv(table, tables / f"{name}.csv")
        write_table(table, tables / f"{name}.parquet", table_origin())
    write_text(tables / "medians.md", markdown(median_table, scored))
    write_text(tables / "medians.tex", latex(median_table, scored))
    write_text(tables / "comparisons.md", comparisons_markdown(compared))
    write_text(tables / "comparisons.tex", comparisons_latex(compared))
    write_csv(ranks(score_table, groups), tables / "ranks.csv")
    write_csv(decay(read_tracked_slices(slices, experiments), groups), tables / "decay.csv")
    write_csv(propagation(score_table, scored, every_slice_schemes), tables / "propagation.csv")
    write_csv(
        corrections(read_rounds(rounds, experiments), correction_clicks or {}, groups), tables / "corrections.csv"
    )
    write_csv(confidence(score_table, acceptable_dice), tables / "confidence.csv")
    write_csv(expected_dice(score_table), tables / "expected_dice.csv")
    write_csv(cost(runs, score_table), tables / "cost.csv")
    write_csv(failures(converted, runs), tables / "failures.csv")
    write_identity(tables, identity, made_from)
    printed = markdown(median_table, scored)
    logger.info("%d volumes, %d configurations\n%s", len(converted), len(median_table), printed)
