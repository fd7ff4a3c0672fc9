"""Names of the tables' columns. Imports no pandas: planning reads it too."""

from __future__ import annotations

SCORED_TOGETHER = ("combined", "union", "mean")
# The median table's other columns, and what follows a structure's name in it.
MEDIAN_COLUMNS = ("model", "scheme", "parameters", "n", "seconds_per_volume")
SURFACE_COLUMNS = ("combined_nsd", "combined_hd95_mm", "combined_assd_mm")
MEDIAN_SUFFIXES = ("low", "high", "bootstrap_low", "bootstrap_high", "iqr", "worst", "undefined")
