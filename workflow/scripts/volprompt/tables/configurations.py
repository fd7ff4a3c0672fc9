"""The configurations (pairs of model and scheme) of a table, and their rows."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

# A configuration that would leave a smaller share of the most complete one's volumes is not compared with the others.
LEAST_SHARE = 0.5


def value_table(
    scores: pd.DataFrame, structure: str, column: str = "dice", repetitions: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return a score of a structure: volumes in rows, configurations (model, scheme) in columns, NaN if undefined.

    scores: the score table.
    column: which score.
    repetitions: the common name of schemes that differ only in the seed of their noise. They are one configuration,
        with
        the mean of each volume's values; a volume that lacks one of them has none.
    """
    chosen = scores[(scores["structure"] == structure) & (scores["status"] == "ok")]
    columns = {
        pair: rows_of(chosen, *pair).set_index("volume")[column].astype(float) for pair in configurations(scores)
    }
    table = pd.DataFrame(columns, dtype=float)
    table = table.reindex(columns=pd.MultiIndex.from_tuples(columns, names=["model", "scheme"]))
    if not repetitions:
        return table
    common: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for model, scheme in columns:
        common.setdefault((model, repetitions.get(scheme, scheme)), []).append((model, scheme))
    averaged = {pair: table[singles].mean(axis=1, skipna=False) for pair, singles in common.items()}
    return pd.DataFrame(averaged).reindex(columns=pd.MultiIndex.from_tuples(averaged, names=["model", "scheme"]))


def comparable(values: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the configurations that can be compared over the volumes that all of them have, in the table's order.

    values: a score, volumes by configurations (columns). Configurations are taken up from the most complete one on, as
    long as the volumes that all have stay at least LEAST_SHARE of that one's: one with a few volumes, be they the easy
    ones, does not shrink what the others are compared on.
    """
    complete = sorted(values.columns, key=lambda pair: -int(values[pair].notna().sum()))
    fewest = LEAST_SHARE * int(values[complete[0]].notna().sum()) if complete else 0
    chosen: list[tuple[str, str]] = []
    for pair in complete:
        left = int(values[[*chosen, pair]].notna().all(axis=1).sum())
        if left and left >= fewest:
            chosen.append(pair)
    return [pair for pair in values.columns if pair in chosen]


def configurations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of model and scheme in a table, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def rows_of(table: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    """Return the rows of one configuration."""
    return table[(table["model"] == model) & (table["scheme"] == scheme)]
