"""Paired comparisons of configurations over the same volumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from volprompt.tables.bootstrap import subjects_of
from volprompt.tables.configurations import comparable, value_table
from volprompt.tables.design import TableDesign
from volprompt.tables.intervals import interval_of_median
from volprompt.tables.paired_tests import (
    SIGNIFICANT,
    equivalence,
    holm,
    independent_differences,
    rank_biserial,
    signed_rank,
)

Pair = tuple[str, str]
# The scores that are compared.
COMPARED = ("dice", "nsd")
COMPARISON_COLUMNS = [
    *("model", "scheme", "other_model", "other_scheme", "kind", "structure", "score", "n", "groups"),
    *("median_difference", "low", "high", "interval", "p", "p_holm", "effect_size"),
    *("margin", "p_equivalent", "p_equivalent_holm"),
]


def comparisons(scores: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Compare Dice and NSD of pairs of configurations over the same volumes, for every structure and for `combined`.

    scores: the score table; design: what of the configuration reaches the tables.

    `kind` says which pairs: `schemes` within a model, `models` under one scheme, and `baseline`: every configuration
    with the baseline, if there is one. The rows have: `n` and `groups`, the numbers of volumes that both have and of
    their subjects; the median difference (other minus first) with its 95 % interval, see `interval_of_median`; the
    two-sided p-value of the Wilcoxon signed-rank test and the effect size; and, if there is a margin, the p-value of
    the two one-sided tests that the difference lies within it. Tests use the mean difference of each subject, since
    two volumes of one subject are not independent. Holm's correction is over the pairs of one kind, structure and
    score.
    """
    rows: list[dict[str, Any]] = []
    for structure in [*design.scored, "combined"]:
        for score in COMPARED:
            values = value_table(scores, structure, score, design.repetitions)
            for kind, first, second in compared_pairs(values, design.baseline):
                named = {"model": first[0], "scheme": first[1], "other_model": second[0], "other_scheme": second[1]}
                named |= {"kind": kind, "structure": structure, "score": score}
                rows.append(named | _compared(values[second] - values[first], design.groups, design.margin))
    table = pd.DataFrame(rows, columns=[name for name in COMPARISON_COLUMNS if not name.endswith("_holm")])
    families = table.groupby(["kind", "structure", "score"], sort=False)
    for name in ("p", "p_equivalent"):
        table[f"{name}_holm"] = families[name].transform(lambda p_values: holm(p_values.to_numpy(float)))
    return table[COMPARISON_COLUMNS]


def compared_pairs(values: pd.DataFrame, baseline: Pair | None = None) -> Iterator[tuple[str, Pair, Pair]]:
    """Yield kind, first and second of every pair that is compared. values: volumes by configurations (columns)."""
    defined = [pair for pair in values.columns if values[pair].notna().any()]
    for first, second in combinations(defined, 2):
        if first[0] == second[0]:
            yield "schemes", first, second
        elif first[1] == second[1]:
            yield "models", first, second
    if baseline is not None and baseline in defined:
        yield from (("baseline", baseline, pair) for pair in defined if pair != baseline)


def _compared(difference: pd.Series, groups: Mapping[str, str], margin: float | None) -> dict[str, Any]:
    difference = difference.dropna()
    subjects = subjects_of(list(difference.index), groups)
    independent = independent_differences(difference.to_numpy(), subjects)
    interval = interval_of_median(difference.to_numpy(), subjects)
    return {
        "n": len(difference),
        "groups": interval.groups,
        "median_difference": float(difference.median()),
        **interval.columns(),
        "interval": interval.kind,
        "p": signed_rank(independent),
        "effect_size": rank_biserial(independent),
        "margin": float("nan") if margin is None else margin,
        "p_equivalent": float("nan") if margin is None else equivalence(independent, margin),
    }


def standings(values: pd.DataFrame, groups: Mapping[str, str]) -> dict[Pair, tuple[str, bool | None]]:
    """Return how each configuration stands to the best one, and whether it is over the same volumes.

    values: a score where more is better, volumes by configurations (columns); groups: the group of each volume.

    The best one has the highest median over the volumes that all `comparable` configurations have; there is none where
    only one of several is comparable. Each of the others is compared with it over the volumes that both have
    (signed-rank test by subject, Holm's correction over them): `tied` if they cannot be told apart, `below` if they
    can, `untested` if there are too few subjects. One that is not comparable is `not compared`, one without values
    ``('', None)``.
    """
    standing: dict[Pair, tuple[str, bool | None]] = dict.fromkeys(values.columns, ("", None))
    defined = [pair for pair in values.columns if values[pair].notna().any()]
    together = comparable(values)
    if len(together) < min(2, len(defined)):
        return standing | dict.fromkeys(defined, ("not compared", False))
    medians = values[together].dropna().median()
    best = [pair for pair in together if medians[pair] == medians.max()]
    others = [pair for pair in together if pair not in best]
    tested = [_compared(values[pair] - values[best[0]], groups, None) for pair in others]
    corrected = holm([test["p"] for test in tested])
    words = {pair: _standing(test, float(p)) for pair, test, p in zip(others, tested, corrected, strict=True)}
    words |= dict.fromkeys(best, "best")
    present = values[defined].notna()
    same = {pair: bool((present[pair] == present[best[0]]).all()) for pair in defined}
    return standing | {pair: (words.get(pair, "not compared"), same[pair]) for pair in defined}


def _standing(test: Mapping[str, Any], p: float) -> str:
    if test["interval"] == "none":
        return "untested"
    return "below" if p < SIGNIFICANT else "tied"
