"""What the command `volprompt` does that belongs to no stage of the workflow."""

CONFIGURATION = "config/config.yaml"  # which a run reads unless it is told otherwise
