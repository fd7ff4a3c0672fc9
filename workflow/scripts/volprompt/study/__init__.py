"""A configuration with its tables and checkpoints, resolved and checked before anything runs."""
