"""Measures the cost of augmentation: python -m benchmarks.augmentation."""
