"""Rule fetch_checkpoint: the catalogue, verified downloads, digests, and safe loading."""
