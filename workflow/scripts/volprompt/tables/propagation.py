"""How memory propagation fails: masks beyond the structure, errors at the prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from volprompt.tables.configurations import configurations


def propagation(scores: pd.DataFrame, scored: Sequence[str], every_slice_schemes: Collection[str]) -> pd.DataFrame:
    """Return medians over the volumes with scores, one row per model, scheme and structure, `combined` included.

    scores: the score table.
    scored: names of the scored structures.
    every_slice_schemes: names of the schemes that are prompted on every slice that shows the structure.

    `over_propagation_worst` is the largest over-propagation. `knows_extent` says whether the scheme prompts every
    slice: its prompts tell on which slices the structure is, so it cannot predict it elsewhere.
    """
    done = scores[scores["status"] == "ok"]
    rows = []
    for model, scheme in configurations(scores):
        here = done[(done["model"] == model) & (done["scheme"] == scheme)]
        for structure in [*scored, "combined"]:
            chosen = here[here["structure"] == structure]
            rows.append(
                {
                    "model": model,
                    "scheme": scheme,
                    "structure": structure,
                    "n": len(chosen),
                    "dice": chosen["dice"].median(),
                    "dice_where_present": chosen["dice_where_present"].median(),
                    "dice_prompted": chosen["dice_prompted"].median(),
                    "over_propagation": chosen["over_propagation"].median(),
                    "over_propagation_worst": chosen["over_propagation"].max(),
                    "volume_error": chosen["volume_error"].median(),
                    "knows_extent": scheme in every_slice_schemes,
                }
            )
    return pd.DataFrame(rows)
