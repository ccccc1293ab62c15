"""The `structmat` command; its commands on studies and checkpoints are tested in `tests/studies`."""
