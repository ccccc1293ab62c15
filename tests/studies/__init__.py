"""Studies and fits of checkpoints, with their commands."""
