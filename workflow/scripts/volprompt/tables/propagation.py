"""How memory propagation fails: masks beyond the structure, errors at the prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from volprompt.tables.configurations import configurations


def propagation(scores: pd.DataFrame, structures: Sequence[str], image_schemes: Collection[str]) -> pd.DataFrame:
    """One row per model, scheme and structure (the scored ones and `combined`): medians over the volumes with scores.

    `over_propagation_worst` is the largest. `knows_extent`: the scheme is one of `image_schemes`, whose prompts tell on
    every slice whether the structure is there, so that it cannot predict where it is not.
    """
    done = scores[scores["status"] == "ok"]
    rows = []
    for model, scheme in configurations(scores):
        here = done[(done["model"] == model) & (done["scheme"] == scheme)]
        for structure in [*structures, "combined"]:
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
                    "knows_extent": scheme in image_schemes,
                }
            )
    return pd.DataFrame(rows)
