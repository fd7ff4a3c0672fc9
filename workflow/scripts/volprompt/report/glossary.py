"""What the headings of the report's tables mean, for the glossary and for the text that shows over a heading."""

from __future__ import annotations

from volprompt.tables.dictionary import MEANINGS

# Columns of the data dictionary by the headings that the report gives them.
COLUMNS = {
    "n": "n",
    "Subjects": "groups",
    "NSD": "nsd",
    "HD95 (mm)": "hd95_mm",
    "ASSD (mm)": "assd_mm",
    "p": "p",
    "p (Holm)": "p_holm",
    "Rank": "rank",
    "Own n": "own_n",
    "Where present": "dice_where_present",
    "Prompted slice": "dice_prompted",
    "Over-propagation": "over_propagation",
    "Volume error": "volume_error",
    "Knows the extent": "knows_extent",
    "Dice (pooled)": "dice_by_mm",
    "Acceptable": "acceptable_share",
    "Area (Dice)": "dice_auc",
    "Area (NSD)": "nsd_auc",
    "AUROC": "auroc",
    "Look below": "look_below",
    "Spearman with Dice": "spearman",
    "Prompts to the model": "prompts_per_volume",
    "Prompts of a person": "human_prompts_per_volume",
}
GLOSSARY = {
    "Dice": "twice the voxels that mask and reference share, over the sum of the voxels of both; 1 is perfect",
    "Combined": "one Dice over the voxels of all scored structures taken together",
    "Interval": "how the 95 % interval was made: exact from order statistics, by a bootstrap over subjects, or none",
    "Effect size": "matched-pairs rank-biserial correlation; 1: the first is always better",
    **{heading: MEANINGS[column].replace("`", "") for heading, column in COLUMNS.items()},
    "p equivalent (Holm)": "p of two one-sided tests for a difference within the margin, after Holm's correction",
}
