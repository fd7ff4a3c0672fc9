"""What the command `volprompt` does that belongs to no stage of the workflow."""
