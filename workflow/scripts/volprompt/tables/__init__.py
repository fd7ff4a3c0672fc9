"""Rule aggregate: medians, comparisons, ranks, decay and cost of a whole study."""
