"""What of a study's configuration reaches its tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableDesign:
    """What of a study's configuration reaches its tables.

    scored: names of the scored structures.
    experiments: the schemes of each experiment; None keeps the rows of schemes that were removed.
    every_slice_schemes: names of the schemes that are prompted on every slice that shows the structure.
    groups: the group (subject) of each volume that has one.
    covariates: by column of the sample sheet, the text of each volume that has one.
    repetitions: the common name of schemes that differ only in the seed of their noise.
    correction_clicks: rounds of each scheme with corrections.
    acceptable_dice: a Dice below it counts as bad.
    baseline: the model and scheme that every other configuration is compared with.
    margin: differences within it count as equivalent.
    compare_with: whose published figures are shown beside the medians.
    """

    scored: Sequence[str]
    experiments: Mapping[str, Sequence[str]] | None = None
    every_slice_schemes: Collection[str] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    covariates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    repetitions: Mapping[str, str] = field(default_factory=dict)
    correction_clicks: Mapping[str, int] = field(default_factory=dict)
    acceptable_dice: float = 0.8
    baseline: tuple[str, str] | None = None
    margin: float | None = None
    compare_with: str | None = None
