"""The data dictionary: type, unit and meaning of every column of the study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from volprompt.columns import (
    CONFIGURATION_COLUMNS,
    COST_COLUMNS,
    STANDING_COLUMNS,
    STRUCTURE_COLUMNS,
    SURFACE_COLUMNS,
    column_of,
)
from volprompt.tables.corrections import TARGETS

INTERVAL = "how the interval was made: `order statistics`, `bootstrap by group`, or `none` (fewer than six subjects)"
# What a column means in every table that does not say otherwise. Units stand in the names: `_mm`, `_mm3`, `seconds`.
MEANINGS = {
    "acceptable_share": "share of the slices whose Dice is at least scores.acceptable_dice",
    "analysis": "`scored`: volumes with a score; `failed_as_0`: failed ones count with a Dice of 0",
    "assd_mm": "average symmetric surface distance",
    "bias_ml": "mean of predicted - reference volume",
    "bias_percent": "mean of predicted - reference volume, in percent of the mean of both",
    "bin_mm": "width of a bin of distances",
    "auroc": "probability that a bad volume has a lower confidence than a good one",
    "covariate": "column of the sample sheet",
    "device": "what the masks were made on",
    "dice": "Dice",
    "dice_auc": "median area below a volume's curve of Dice, 1 is perfect",
    "dice_prompted": "Dice of the prompted slices, for video schemes",
    "dice_where_present": "Dice of the slices on which the reference shows the structure",
    "direction": "`prompted`, `forward` or `reverse`",
    "dice_by_mm": "Dice of the slices in this bin, pooled over volumes by area",
    "distance_mm": "distance from the nearest prompted slice: middle of the bin",
    "distance": "distance from the nearest prompted slice, signed: reverse is negative; empty for image schemes",
    "effect_size": "matched-pairs rank-biserial correlation; 1: the other is always better",
    "expected_dice": "combined Dice to be expected, by predicted IoU",
    "experiment": "the experiment",
    "first_share": "share of resamples in which the configuration is first",
    "group": "the subject: `group` of the sample sheet, or the volume itself",
    "groups_by_mm": "number of subjects in this bin",
    "high_by_mm": "upper end of the 95 % interval of dice_by_mm",
    "high_ml": "upper 95 % limit of agreement",
    "high_percent": "upper 95 % limit of agreement, in percent",
    "low_by_mm": "lower end of the 95 % interval of dice_by_mm",
    "low_ml": "lower 95 % limit of agreement",
    "low_percent": "lower 95 % limit of agreement, in percent",
    "median_by_mm": "median Dice of the volumes in this bin",
    "sd_ml": "standard deviation of predicted - reference volume",
    "sd_percent": "standard deviation of predicted - reference volume, in percent",
    "slice_mm": "slice spacing, if all volumes have the same",
    "slices": "slices on which reference or mask has a pixel",
    "tolerance_mm": "tolerance of the NSD",
    "volumes_by_mm": "number of volumes in this bin",
    "groups": "number of subjects behind the value",
    "hd95_mm": "95 % Hausdorff distance",
    "high": "upper end of the 95 % interval",
    "human_prompts": "prompts that a person would give in all: a point that serves several objects counts once",
    "human_prompts_per_volume": "median of the prompts that a person would give",
    "intersection": "pixels of mask and reference",
    "interval": INTERVAL,
    "iqr": "interquartile range",
    "kind": "`schemes` within a model, `models` under a scheme, or `baseline` against the others",
    "knows_extent": "whether the prompts tell on which slices the structure is",
    "level": "value of the covariate",
    "look_below": "confidence below which a reader should look at a mask",
    "low": "lower end of the 95 % interval",
    "margin": "differences within it count as equivalent",
    "measure": "`predicted_iou` or `object_score`",
    "median": "median over the volumes",
    "median_difference": "median of the other minus the first, over the volumes that both have",
    "model": "the model",
    "n": "volumes behind the value",
    "nsd": "normalized surface Dice",
    "nsd_auc": "median area below a volume's curve of NSD, 1 is perfect",
    "object_score": "logit that the object is there, mean over the slices on which the mask has voxels",
    "other_model": "the other model",
    "other_scheme": "the other scheme",
    "over_propagation": "predicted voxels on slices without the structure, as a share of the reference's voxels",
    "over_propagation_worst": "largest over-propagation",
    "own_n": "volumes that the configuration itself has",
    "p": "two-sided p-value of the Wilcoxon signed-rank test, by subject",
    "p_equivalent": "p-value of two one-sided tests that the difference lies within the margin",
    "p_equivalent_holm": "the same after Holm's correction over the pairs of one kind, structure and score",
    "p_holm": "p after Holm's correction over the pairs of one kind, structure and score",
    "parameters": "number of the model's parameters",
    "peak_gpu_memory_mb": "largest memory on the GPU",
    "peak_memory_mb": "largest memory of a job",
    "precision": "floating-point precision that was used",
    "predicted": "pixels of the mask",
    "predicted_iou": "the model's own prediction of the IoU, mean over the slices on which the mask has voxels",
    "prompts": "points, boxes, masks and clicks that the model was given",
    "prompts_per_volume": "median number of prompts that the model was given",
    "rank": "rank by median combined Dice, 1 for the best",
    "rank_high": "rank at 97.5 % of the resamples",
    "rank_low": "rank at 2.5 % of the resamples",
    "reason": "why it failed",
    "reference": "pixels of the reference",
    "reference_mm3": "volume of the reference",
    "round": "round of corrections, 0 before any click",
    "scheme": "the scheme",
    "schemes": "number of schemes",
    "score": "`dice`, `nsd`, `hd95_mm` or `assd_mm`",
    "seconds": "seconds of a volume: reading, encoding, prompting and writing",
    "seconds_encode": "median seconds of encoding, shared by the schemes of an experiment",
    "seconds_own": "seconds that the scheme adds: prompting and writing",
    "seconds_per_volume": "median seconds per volume, with what is shared counted in full",
    "seconds_prompt": "median seconds of decoding or tracking",
    "seconds_shared": "seconds that the schemes of an experiment share: reading and encoding",
    "slice": "index of the slice, from 0",
    "slices_per_second": "median number of slices divided by seconds",
    "spacing_slice_mm": "distance between slices",
    "spacing_x_mm": "width of a pixel",
    "spacing_y_mm": "height of a pixel",
    "spearman": "rank correlation of the confidence with the combined Dice",
    "stage": "the stage that failed",
    "status": "`ok`, `failed`, `no_prompt`, `absent`, `left_out` or `no_reference`",
    "structure": "the structure; also `combined`, `union` and `mean`",
    "unacceptable": "volumes with a Dice below scores.acceptable_dice",
    "volume": "the volume",
    "volume_error": "predicted / reference volume - 1",
    "volume_mm3": "volume of the mask",
    "volumes": "number of volumes",
    "worst": "worst value: the lowest Dice or NSD, the largest distance",
    **{f"{score}_low": "lower end of the 95 % interval" for score in ("dice", "nsd")},
    **{f"{score}_high": "upper end of the 95 % interval" for score in ("dice", "nsd")},
    **{f"rounds_to_{n}": f"median rounds until the Dice is 0.{n}; `> N` if it is not within N" for n in TARGETS},
    **{f"never_{n}": f"volumes whose Dice never reaches 0.{n}" for n in TARGETS},
}
# What a column means in one table alone.
OF_TABLE = {
    ("experiment_cost", "seconds_shared"): "seconds of reading and encoding all volumes, once",
    ("experiment_cost", "seconds_own"): "seconds of prompting and writing, all schemes and volumes",
    ("experiment_cost", "seconds"): "seconds_shared + seconds_own",
    ("experiment_cost", "seconds_apart"): "the same if each scheme read and encoded for itself",
    ("decay", "distance"): "distance from the nearest prompted slice, in slices",
    ("decay", "dice"): "Dice of the slices at this distance, pooled over volumes",
    ("slices", "predicted_iou"): "the model's own prediction of the slice's IoU",
    ("slices", "object_score"): "logit that the object is on the slice",
    ("propagation", "dice"): "median Dice",
    ("corrections", "dice"): "median Dice in this round",
    ("corrections", "nsd"): "median NSD in this round",
    ("corrections", "prompts"): "median number of prompts given until this round",
    ("cost", "dice"): "median combined Dice",
}
UNITS = {"_by_mm": "", "_mm": "mm", "_mm3": "mm3", "_mb": "MB", "_ml": "ml", "_percent": "%", "seconds": "s"}


class Described(NamedTuple):
    """Unit (empty if there is none) and meaning of a column."""

    unit: str
    meaning: str


def describe(
    table: str, columns: Sequence[str], scored: Sequence[str], covariates: Sequence[str]
) -> dict[str, Described]:
    """Return unit and meaning of each column of a table, by name.

    table: its name without ending; scored: names of the scored structures; covariates: of the sample sheet. Raises
    KeyError for a column that nobody described.
    """
    meanings = dict(MEANINGS) | dict.fromkeys(covariates, "covariate: a column of the sample sheet")
    if table == "medians":
        meanings |= dict(_of_medians(scored))
    return {name: Described(_unit(name), OF_TABLE.get((table, name)) or meanings[name]) for name in columns}


def _of_medians(scored: Sequence[str]) -> Iterator[tuple[str, str]]:
    for column in (*CONFIGURATION_COLUMNS, *COST_COLUMNS):
        yield column.name, column.meaning
    for structure in [*scored, "combined"]:
        for column in (*STRUCTURE_COLUMNS, *STANDING_COLUMNS):
            yield column_of(structure, column.name), column.meaning
    for column in SURFACE_COLUMNS:
        yield column_of("combined", column.name), column.meaning


def _unit(name: str) -> str:
    return next((unit for part, unit in UNITS.items() if name.endswith(part) or name.startswith(part)), "")


def data_dictionary(
    tables: Mapping[str, pd.DataFrame], scored: Sequence[str], covariates: Sequence[str]
) -> pd.DataFrame:
    """Return one row per table and column: `table`, `column`, `type`, `unit`, `meaning`; arguments as in `describe`."""
    rows = [
        {"table": name, "column": column, "type": type_in_words(table[column].dtype), "unit": unit, "meaning": meaning}
        for name, table in tables.items()
        for column, (unit, meaning) in describe(name, list(table.columns), scored, covariates).items()
    ]
    return pd.DataFrame(rows, columns=["table", "column", "type", "unit", "meaning"])


def type_in_words(dtype: object) -> str:
    """Return `text`, `number`, `whole number` or `yes or no`."""
    kind = getattr(dtype, "kind", "O")
    return {"f": "number", "i": "whole number", "u": "whole number", "b": "yes or no"}.get(kind, "text")
