"""The tables of the whole study, made from what the jobs wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from volprompt.files import write_csv, write_table, write_text
from volprompt.identity import NO_SETTINGS, digest_of_intact, write_identity
from volprompt.logs import logger
from volprompt.scores.tolerance import tolerance_text
from volprompt.tables.acceptable import acceptable_slices
from volprompt.tables.agreement import agreement
from volprompt.tables.comparisons import comparisons
from volprompt.tables.confidence import confidence, expected_dice
from volprompt.tables.corrections import corrections
from volprompt.tables.cost import cost, experiment_cost
from volprompt.tables.decay import decay, slice_sizes
from volprompt.tables.design import TableDesign
from volprompt.tables.dictionary import data_dictionary, describe
from volprompt.tables.failures import failures
from volprompt.tables.medians import medians, medians_long
from volprompt.tables.propagation import propagation
from volprompt.tables.ranks import ranks
from volprompt.tables.score_rows import with_study_columns
from volprompt.tables.stored import (
    job_name,
    read_rounds,
    read_runs,
    read_scores,
    read_slice_columns,
    read_tracked_slices,
    score_metadata,
    table_origin,
    write_slices,
)
from volprompt.tables.subgroups import subgroups
from volprompt.tables.typeset import comparisons_latex, comparisons_markdown, latex, markdown
from volprompt.volumes.converted import read_volume_table, same_images

# Tables that are written as Parquet beside CSV.
TYPED = ("scores", "medians", "comparisons")


def aggregate(
    *,
    scores: Sequence[str | Path],
    slices: Sequence[str | Path],
    rounds: Sequence[str | Path],
    masks: Sequence[str | Path],
    volumes: Sequence[str | Path],
    design: TableDesign,
    tables: str | Path,
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the study's tables into the folder `tables`, and their identity.

    scores: the score tables, in the order in which models and schemes are to appear.
    slices: the slice tables.
    rounds: the tables of rounds of corrections.
    masks: folders with a run.parquet.
    volumes: folders of converted shards.
    design: what of the configuration reaches the tables.
    tables: the folder to write to.
    identity: the settings that reach the tables.

    Writes every table of `study_tables` as CSV, some also as Parquet; medians and comparisons in Markdown and LaTeX;
    slices.parquet; and dictionary.csv, which says what each column is.
    """
    folder = Path(tables)
    made_from = {job_name(path): digest_of_intact(path) for path in scores}
    converted = pd.concat([read_volume_table(path) for path in volumes], ignore_index=True)
    for volume, remark in same_images(converted, design.groups):
        logger.warning("volume %s %s", volume, remark)
    made = study_tables(scores, slices, rounds, masks, converted, design)
    described = (design.scored, list(design.covariates))
    for name, table in made.items():
        write_csv(table, folder / f"{name}.csv")
        if name in TYPED:
            metadata = score_metadata(scores) if name == "scores" else table_origin()
            fields = {column: one._asdict() for column, one in describe(name, list(table), *described).items()}
            write_table(table, folder / f"{name}.parquet", metadata, fields)
    slice_columns = read_slice_columns(slices)
    fields = {column: one._asdict() for column, one in describe("slices", list(slice_columns), *described).items()}
    write_slices(slices, folder / "slices.parquet", design.experiments, score_metadata(slices), fields)
    write_csv(data_dictionary({**made, "slices": slice_columns}, *described), folder / "dictionary.csv")
    texts = typeset(made, design)
    for name, text in texts.items():
        write_text(folder / name, text)
    write_identity(folder, identity, made_from)
    logger.info("%d volumes, %d configurations\n%s", len(converted), len(made["medians"]), texts["medians.md"])


def study_tables(
    scores: Sequence[str | Path],
    slices: Sequence[str | Path],
    rounds: Sequence[str | Path],
    masks: Sequence[str | Path],
    converted: pd.DataFrame,
    design: TableDesign,
) -> dict[str, pd.DataFrame]:
    """Return the study's tables by name; converted: the volume tables of all shards, the others as in `aggregate`."""
    score_table = read_scores(scores, design.experiments)
    runs = read_runs(masks, design.experiments)
    groups = design.groups
    tracked = read_tracked_slices(slices, design.experiments)
    corrected = read_rounds(rounds, design.experiments)
    return {
        "scores": with_study_columns(score_table, runs, converted, design),
        "medians": medians(score_table, runs, design),
        "medians_long": medians_long(score_table, runs, design),
        "comparisons": comparisons(score_table, design),
        "ranks": ranks(score_table, groups, design.repetitions),
        "subgroups": subgroups(score_table, design),
        "decay": decay(tracked, slice_sizes(converted), groups),
        "agreement": agreement(score_table, design.scored, groups),
        "acceptable": acceptable_slices(slices, design.acceptable_dice, groups, design.experiments),
        "propagation": propagation(score_table, design.scored, design.every_slice_schemes),
        "corrections": corrections(corrected, design.correction_clicks, groups),
        "confidence": confidence(score_table, design.acceptable_dice),
        "expected_dice": expected_dice(score_table),
        "cost": cost(runs, score_table),
        "experiment_cost": experiment_cost(runs),
        "failures": failures(converted, runs),
    }


def typeset(made: Mapping[str, pd.DataFrame], design: TableDesign) -> dict[str, str]:
    """Return the texts of the tables for papers, by the name of their file."""
    tolerance = tolerance_text(made["scores"])
    return {
        "medians.md": markdown(made["medians"], design, tolerance),
        "medians.tex": latex(made["medians"], design, tolerance),
        "comparisons.md": comparisons_markdown(made["comparisons"], tolerance),
        "comparisons.tex": comparisons_latex(made["comparisons"], tolerance),
    }
