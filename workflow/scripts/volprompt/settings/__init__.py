"""What a user may write: the configuration's types, its presets, and how it is read."""
