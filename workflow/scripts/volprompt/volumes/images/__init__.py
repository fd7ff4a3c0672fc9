"""Images of any format on disk: what a source consists of, its header as one kind of grid, and its voxels."""
