"""The columns of the score table and of the median table, the latter with what they mean and how they are headed.

Imports no pandas: planning reads it, since no structure or covariate may have a column's name. To add a column, see
CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What the score table calls the scores over all structures.
SCORED_TOGETHER = ("combined", "union", "mean")
# The columns of the jobs' score tables with their types.
SCORE_COLUMNS = {
    "experiment": "string",
    "model": "string",
    "scheme": "string",
    "volume": "string",
    "structure": "string",
    "dice": "float64",
    "nsd": "float64",
    "hd95_mm": "float64",
    "assd_mm": "float64",
    "volume_mm3": "float64",
    "reference_mm3": "float64",
    "volume_error": "float64",
    "over_propagation": "float64",
    "dice_where_present": "float64",
    "dice_prompted": "float64",
    "tolerance_mm": "float64",
    "predicted_iou": "float64",
    "object_score": "float64",
    "status": "string",
}
# What the study's score table has beside them and the covariates.
JOINED_COLUMNS = (
    *("group", "spacing_slice_mm", "spacing_y_mm", "spacing_x_mm"),
    *("parameters", "prompts", "human_prompts", "seconds"),
)


@dataclass(frozen=True)
class Column:
    """A column of the median table.

    name: in the table; for a column of a structure see `column_of`.
    heading: in the report; empty for the upper end of an interval, which is shown with the column before it.
    meaning: as in docs/results.md.
    kind: of its numbers, one of `numbers.KINDS`.
    """

    name: str
    heading: str
    meaning: str
    kind: str = "score"


CONFIGURATION_COLUMNS = (
    Column("model", "Model", "the model"),
    Column("scheme", "Prompts", "the scheme"),
    Column("parameters", "Parameters", "number of the model's parameters"),
    Column("n", "n", "volumes with masks and reference"),
    Column("groups", "Subjects", "subjects of these volumes"),
    Column("interval", "Interval", "how the interval of the combined median was made"),
)
# For each scored structure and `combined`.
STRUCTURE_COLUMNS = (
    Column("median", "Median", "median Dice over the volumes"),
    Column("low", "95 % interval", "lower end of the 95 % interval of the median"),
    Column("high", "", "upper end"),
    Column("iqr", "IQR", "interquartile range of the Dice"),
    Column("worst", "Worst", "lowest Dice"),
    Column("undefined", "Undefined", "segmented volumes without a Dice", kind="count"),
    Column("failed", "Failed", "volumes that failed, or in which the structure could not be prompted", kind="count"),
    Column("failed_as_0", "Failures as 0", "median Dice with failures counted as 0"),
)
# For each scored structure and `combined`: how its median stands to the best one.
STANDING_COLUMNS = (
    Column(
        "standing",
        "Standing",
        "`best`, `tied` with it, `below` it, `untested` or `not compared`; empty without a median",
    ),
    Column("same_volumes", "Same volumes", "whether the median is over the same volumes as the best one"),
)
# For `combined` alone; the names are those of the score table's columns.
SURFACE_COLUMNS = (
    Column("nsd", "NSD", "median normalized surface Dice of the combined mask"),
    Column("hd95_mm", "HD95 (mm)", "median 95 % Hausdorff distance of the combined mask", kind="mm"),
    Column("assd_mm", "ASSD (mm)", "median average symmetric surface distance of the combined mask", kind="mm"),
)
COST_COLUMNS = (Column("seconds_per_volume", "Seconds per volume", "median seconds per volume", kind="seconds"),)


def column_of(structure: str, name: str) -> str:
    """Return the name of a structure's column: that of its median Dice is the structure's own."""
    return structure if name == "median" else f"{structure}_{name}"


def heading_of(name: str) -> str:
    """Return a name as a heading: `femoral_cartilage` as "Femoral cartilage", `L5S1` and `mFC` as they are."""
    words = name.replace("_", " ")
    return words if words != words.lower() else words[:1].upper() + words[1:]


def median_columns(scored: Iterable[str]) -> list[str]:
    """Return the names of the median table's columns, in order. scored: the scored structures."""
    names = [column.name for column in CONFIGURATION_COLUMNS]
    of_structure = [*STRUCTURE_COLUMNS, *STANDING_COLUMNS]
    names += [column_of(structure, column.name) for structure in [*scored, "combined"] for column in of_structure]
    names += [column_of("combined", column.name) for column in SURFACE_COLUMNS]
    return names + [column.name for column in COST_COLUMNS]


def reserved_names(configured: Iterable[str]) -> set[str]:
    """Return the names that the median table takes, so that no structure can have them. configured: all structures."""
    endings = [column.name for column in (*STRUCTURE_COLUMNS, *STANDING_COLUMNS) if column.name != "median"]
    return set(median_columns([])) | {column_of(name, ending) for name in configured for ending in endings}


def shown_together(columns: Sequence[Column]) -> list[list[Column]]:
    """Return the columns in groups that the report shows in one cell: the two ends of an interval."""
    groups: list[list[Column]] = []
    for column in columns:
        if column.heading:
            groups.append([column])
        else:
            groups[-1].append(column)
    return groups
