"""The answer of the study, for the first screen: which configuration is best, how sure that is, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from volprompt.numbers import MISSING, interval, number
from volprompt.report.facts import counted
from volprompt.report.shards import StudyDesign
from volprompt.tables.bootstrap import FEWEST, count_subjects
from volprompt.tables.paired_tests import SIGNIFICANT

# Volumes named as the hardest ones.
HARDEST = 5
# Configurations named as tied with the best one; of more the number is given.
NAMED = 3


class Tile(NamedTuple):
    """A number with what it counts; place: the id of the section that tells more; alarming: whether to look there."""

    value: str
    what: str
    place: str
    alarming: bool = False


class HardVolume(NamedTuple):
    """A volume by its combined Dice over the configurations that have it; failed: those that failed on it."""

    volume: str
    mean: float
    lowest: float
    highest: float
    failed: int


@dataclass(frozen=True)
class Answer:
    """sentence: its parts, those at odd places to be stressed."""

    sentence: Sequence[str]
    tiles: Sequence[Tile]
    hardest: Sequence[HardVolume]


def answer(
    *,
    scores: pd.DataFrame,
    medians: pd.DataFrame,
    ranks: pd.DataFrame,
    volumes: pd.DataFrame,
    design: StudyDesign,
    warnings: int,
    departures: int | None,
) -> Answer:
    """Say what came out.

    scores, medians, ranks: the study's tables; volumes: the volume tables of all shards; warnings, departures: how many
    warnings about volumes and departures from the paper there are, None for a study that does not reproduce it.
    """
    return Answer(
        best_in_words(medians, ranks),
        tiles(scores, volumes, design, warnings, departures),
        hardest_volumes(scores),
    )


def best_configuration(medians: pd.DataFrame) -> pd.Series | None:
    """Return the row of the configuration that the answer names; None where nothing was scored."""
    ranked = medians[medians["combined"].notna()]
    if ranked.empty:
        return None
    chosen = ranked[ranked["combined_standing"].fillna("") == "best"]
    return (chosen if len(chosen) else ranked).sort_values("combined", ascending=False, kind="stable").iloc[0]


def best_in_words(medians: pd.DataFrame, ranks: pd.DataFrame) -> list[str]:
    """Return the sentence on the best configuration, in parts; those at odd places are to be stressed."""
    best = best_configuration(medians)
    if best is None:
        return ["No volume could be scored, so that there is no best configuration."]
    ranked = medians[medians["combined"].notna()]
    standing = ranked["combined_standing"].fillna("")
    if len(ranked) == 1:
        parts = ["The one configuration, ", f"{best['model']} with {best['scheme']}", ", has a median Dice of "]
    else:
        parts = ["The highest median Dice is that of ", f"{best['model']} with {best['scheme']}", ": "]
    limits = interval(best["combined_low"], best["combined_high"], "score")
    of_volumes = f" over {counted(int(best['n']), 'volume')}"
    parts += [number(best["combined"], "score"), of_volumes if limits == MISSING else f" {limits}{of_volumes}"]
    share = _first_share(ranks, best)
    if share is not None:
        parts[-1] += f", first in {number(share, 'share')} of the resamples"
    if len(ranked) == 1:
        parts[-1] += "."
    elif int(best["groups"]) < FEWEST:
        parts[-1] += f". With {counted(int(best['groups']), 'subject')} no test can tell the configurations apart."
    else:
        others = ranked[standing.isin(["best", "tied"]) & (ranked.index != best.name)]  # several can be equally good
        parts[-1] += f". {_ties(others, int((standing == 'below').sum()), best)}"
    return parts


def _first_share(ranks: pd.DataFrame, best: pd.Series) -> float | None:
    """How often a configuration came first when the volumes were drawn again."""
    if ranks.empty:
        return None
    own = ranks[(ranks["model"] == best["model"]) & (ranks["scheme"] == best["scheme"])]["first_share"].dropna()
    return float(own.iloc[0]) if len(own) else None


def _ties(tied: pd.DataFrame, below: int, best: pd.Series) -> str:
    """What a test says. tied, below: configurations that cannot be told from the best one, and how many can."""
    if tied.empty:
        return "Every other configuration that was compared with it is worse by a signed-rank test."
    # With n subjects no p-value is below 2 / 2^n, and Holm's correction multiplies the smallest one by their number.
    compared = len(tied)
    if not below and compared * 2.0 ** (1 - int(best["groups"])) >= SIGNIFICANT:
        known = f"{counted(int(best['groups']), 'subject')} and {counted(compared, 'comparison')}"
        return f"With {known} no signed-rank test can find a difference, however large."
    names = [f"{row.model} with {row.scheme}" for row in tied.itertuples()]
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"A signed-rank test cannot tell it from {shown}."


def tiles(
    scores: pd.DataFrame, volumes: pd.DataFrame, design: StudyDesign, warnings: int, departures: int | None
) -> list[Tile]:
    """Return the numbers of the first screen."""
    ok = set(scores.loc[scores["status"] == "ok", "volume"])
    failed = set(scores.loc[scores["status"] == "failed", "volume"]) | set(
        volumes.loc[volumes["status"] != "ok", "volume"]
    )
    unscored = set(scores.loc[scores["status"] == "no_reference", "volume"])
    subjects = count_subjects(ok, design.groups)
    found = [
        Tile(number(len(ok), "count"), "volume scored" if len(ok) == 1 else "volumes scored", "single"),
        Tile(number(subjects, "count"), "subject" if subjects == 1 else "subjects", "single"),
        Tile(number(len(scores[["model", "scheme"]].drop_duplicates()), "count"), "configurations", "medians"),
        Tile(number(len(failed), "count"), "volumes with a failure", "failed", bool(failed)),
        Tile(number(len(unscored), "count"), "without reference", "failed"),
        Tile(
            number(warnings, "count"),
            "warning about volumes" if warnings == 1 else "warnings about volumes",
            "failed",
            warnings > 0,
        ),
    ]
    if departures is not None:
        what = "departure from the paper" if departures == 1 else "departures from the paper"
        found.append(Tile(number(departures, "count"), what, "departures"))
    return found


def hardest_volumes(scores: pd.DataFrame) -> list[HardVolume]:
    """Return the volumes with the lowest mean combined Dice over the configurations, the lowest first."""
    combined = scores[scores["structure"] == "combined"]
    dice = combined.pivot_table(index="volume", columns=["model", "scheme"], values="dice", aggfunc="first")
    failed = combined[combined["status"] == "failed"].groupby("volume").size()
    means = dice.mean(axis=1).sort_values(kind="stable").head(HARDEST)
    rows = []
    for volume, mean in means.items():
        own = dice.loc[volume].dropna().to_numpy()
        rows.append(
            HardVolume(str(volume), float(mean), float(np.min(own)), float(np.max(own)), int(failed.get(volume, 0)))
        )
    return rows
