"""The configurations (pairs of model and scheme) of a table, and their rows."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd


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


def configurations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of model and scheme in a table, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def rows_of(table: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    """Return the rows of one configuration."""
    return table[(table["model"] == model) & (table["scheme"] == scheme)]
