"""Train one run: its settings, one epoch, checkpoints, several processes."""
