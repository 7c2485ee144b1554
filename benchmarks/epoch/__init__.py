"""Times a whole training epoch: python -m benchmarks.epoch."""
