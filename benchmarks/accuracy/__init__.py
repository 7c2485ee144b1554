"""Trains published experiments: python -m benchmarks.accuracy."""
