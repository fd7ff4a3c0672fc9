"""Agreement of predicted with reference volumes, after Bland and Altman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from volprompt.tables.bootstrap import FEWEST, subjects_of
from volprompt.tables.configurations import configurations, rows_of

AGREEMENT_COLUMNS = [
    *("model", "scheme", "structure", "n", "groups"),
    *("bias_ml", "sd_ml", "low_ml", "high_ml"),
    *("bias_percent", "sd_percent", "low_percent", "high_percent"),
]
# Of a normal distribution 95 % lies within so many standard deviations of its mean.
WITHIN_95 = 1.96


class Limits(NamedTuple):
    """Mean and standard deviation of differences, and the 95 % limits of agreement."""

    bias: float
    sd: float
    low: float
    high: float


def agreement(scores: pd.DataFrame, scored: Sequence[str], groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return how predicted volumes differ from reference volumes, per configuration and structure.

    scores: the score table.
    scored: names of the scored structures; `combined` follows them.
    groups: the group (subject) of each volume.

    Over the `n` volumes, of `groups` subjects, that have both masks scored: `limits_of_agreement` of the differences
    predicted - reference in millilitres, and of the differences in percent of the mean of both volumes. Where neither
    mask has a voxel, the percentage is undefined, and the volume is left out of it.
    """
    rows: list[dict[str, Any]] = []
    for model, scheme in configurations(scores):
        done = rows_of(scores, model, scheme)
        done = done[(done["status"] == "ok") & done["reference_mm3"].notna()]
        for structure in [*scored, "combined"]:
            chosen = done[done["structure"] == structure]
            subjects = np.array(subjects_of(list(chosen["volume"]), groups))
            mean, difference = volumes_ml(chosen)
            of_ml = limits_of_agreement(difference, subjects)
            shown = mean > 0
            of_percent = limits_of_agreement(100 * difference[shown] / mean[shown], subjects[shown])
            named = [model, scheme, structure, len(chosen), len(set(subjects))]
            rows.append(dict(zip(AGREEMENT_COLUMNS, [*named, *of_ml, *of_percent], strict=True)))
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)


def volumes_ml(scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of predicted and reference volume, and predicted - reference: millilitres, float64 (rows,)."""
    predicted, reference = (scores[name].to_numpy(float) / 1000 for name in ("volume_mm3", "reference_mm3"))
    return (predicted + reference) / 2, predicted - reference


def limits_of_agreement(differences: np.ndarray, subjects: np.ndarray) -> Limits:
    """Return the mean of differences, their standard deviation, and the limits mean - and + 1.96 of it.

    differences: float (volumes,); subjects: of every volume.

    With one volume per subject the standard deviation is the usual one, with n - 1 (Bland and Altman, Lancet 1986).
    Where a subject has several volumes, its variance is the sum of two components of a one-way analysis of variance,
    within and between subjects (Bland and Altman, J Biopharm Stat 2007, section 3: the true value varies): pairs of one
    subject are alike, and the usual one would be too small. There is no standard deviation of fewer than two subjects,
    and no limits from fewer than FEWEST.
    """
    nan = float("nan")
    bias = float(differences.mean()) if len(differences) else nan
    names, subject, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return Limits(bias, nan, nan, nan)
    means = np.bincount(subject, weights=differences) / counts
    between = float((counts * (means - bias) ** 2).sum() / (len(names) - 1))
    repeats = len(differences) - len(names)
    if repeats:
        within = float(((differences - means[subject]) ** 2).sum() / repeats)
        # How many volumes a subject has, in a mean that the analysis of variance of unequal groups asks for.
        typical = (len(differences) ** 2 - (counts**2).sum()) / ((len(names) - 1) * len(differences))
        variance = max((between - within) / typical, 0.0) + within
    else:
        variance = between
    sd = variance**0.5
    if len(names) < FEWEST:
        return Limits(bias, sd, nan, nan)
    return Limits(bias, sd, bias - WITHIN_95 * sd, bias + WITHIN_95 * sd)
