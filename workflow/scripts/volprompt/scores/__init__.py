"""Rule score: overlap, surfaces and slices against the references."""
