"""The configurations (pairs of model and scheme) of a table, and their rows."""

from __future__ import annotations

import pandas as pd


def dice_table(scores: pd.DataFrame, structure: str) -> pd.DataFrame:
    """Return the Dice of a structure: volumes in rows, configurations (model, scheme) in columns, NaN if undefined."""
    chosen = scores[(scores["structure"] == structure) & (scores["status"] == "ok")]
    columns = {
        pair: rows_of(chosen, *pair).set_index("volume")["dice"].astype(float) for pair in configurations(scores)
    }
    table = pd.DataFrame(columns, dtype=float)
    return table.reindex(columns=pd.MultiIndex.from_tuples(columns, names=["model", "scheme"]))


def configurations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of model and scheme in a table, in the order of their first rows."""
    pairs = table[["model", "scheme"]].drop_duplicates()
    return [(str(model), str(scheme)) for model, scheme in pairs.itertuples(index=False)]


def rows_of(table: pd.DataFrame, model: str, scheme: str) -> pd.DataFrame:
    """Return the rows of one configuration."""
    return table[(table["model"] == model) & (table["scheme"] == scheme)]
