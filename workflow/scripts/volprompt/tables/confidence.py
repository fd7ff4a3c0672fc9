"""How well a model's own confidence tells good masks from bad ones, and what it lets expect without a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from volprompt.tables.bootstrap import FEWEST
from volprompt.tables.configurations import configurations, rows_of

MEASURES = ("predicted_iou", "object_score")
COLUMNS = ["model", "scheme", "measure", "n", "unacceptable", "spearman", "auroc", "look_below"]
EXPECTED_COLUMNS = ["model", "scheme", "volume", "predicted_iou", "object_score", "expected_dice"]


def confidence(scores: pd.DataFrame, acceptable_dice: float) -> pd.DataFrame:
    """Return one row per model, scheme and measure of confidence, over the volumes with a combined Dice.

    scores: the score table.
    acceptable_dice: below it a volume counts as bad.

    `spearman`: rank correlation of the confidence with the Dice, NaN for fewer than FEWEST volumes. `auroc`: the
    probability that a bad volume has a lower confidence than a good one, equal ones counting half (Mann and Whitney
    1947); NaN unless there are both. `look_below`: the confidence below which a reader should look at a mask: of all
    limits the one with the largest sum of sensitivity and specificity (Youden 1950); NaN likewise. Measures that a
    family does not have are left out.
    """
    rows: list[dict[str, Any]] = []
    for model, scheme in configurations(scores):
        chosen = _combined(scores, model, scheme)
        for measure in MEASURES:
            known = chosen[chosen["dice"].notna() & chosen[measure].notna()]
            if known.empty:
                continue
            bad = (known["dice"] < acceptable_dice).to_numpy()
            sure = known[measure].to_numpy(float)
            rows.append(
                {
                    "model": model,
                    "scheme": scheme,
                    "measure": measure,
                    "n": len(known),
                    "unacceptable": int(bad.sum()),
                    "spearman": _spearman(sure, known["dice"].to_numpy(float)),
                    "auroc": _auroc(sure, bad),
                    "look_below": _limit(sure, bad),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def expected_dice(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the combined Dice to be expected of every volume without a reference, by its predicted IoU.

    scores: the score table. The Dice is that of an isotonic regression over the volumes of the same model and scheme
    that have a reference: never falling with the predicted IoU, in straight lines between volumes, and constant beyond
    the first and the last one. NaN for fewer than FEWEST volumes with a reference.
    """
    rows: list[dict[str, Any]] = []
    for model, scheme in configurations(scores):
        chosen = _combined(scores, model, scheme)
        known = chosen[chosen["dice"].notna() & chosen["predicted_iou"].notna()].sort_values("predicted_iou")
        for row in chosen[(chosen["status"] == "no_reference") & chosen["predicted_iou"].notna()].itertuples():
            expected = float("nan")
            if len(known) >= FEWEST:
                fitted = optimize.isotonic_regression(known["dice"].to_numpy(float)).x
                expected = float(np.interp(row.predicted_iou, known["predicted_iou"].to_numpy(float), fitted))
            sure = {measure: getattr(row, measure) for measure in MEASURES}
            rows.append({"model": model, "scheme": scheme, "volume": row.volume, **sure, "expected_dice": expected})
    return pd.DataFrame(rows, columns=EXPECTED_COLUMNS)


def _combined(scores: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    rows = rows_of(scores, model, scheme)
    return rows[rows["structure"] == "combined"]


def _spearman(sure: np.ndarray, dice: np.ndarray) -> float:
    if len(sure) < FEWEST or len(set(sure)) == 1 or len(set(dice)) == 1:
        return float("nan")
    return float(stats.spearmanr(sure, dice).statistic)


def _auroc(sure: np.ndarray, bad: np.ndarray) -> float:
    if bad.all() or not bad.any():
        return float("nan")
    return float(stats.mannwhitneyu(sure[~bad], sure[bad]).statistic / (bad.sum() * (~bad).sum()))


def _limit(sure: np.ndarray, bad: np.ndarray) -> float:
    """Return the confidence of a good volume below which most bad ones and fewest good ones lie; the lowest such."""
    if bad.all() or not bad.any():
        return float("nan")
    limits = np.unique(sure[~bad])
    gains = [np.mean(sure[bad] < limit) + np.mean(sure[~bad] >= limit) for limit in limits]
    return float(limits[int(np.argmax(gains))])
