"""Rule segment: the loop over a shard's volumes, the run table, and masks on the original grid."""
