"""The data set: its file, where images come from, noisy labels, batches for training."""
