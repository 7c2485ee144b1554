"""Runs all benchmarks on a machine with a GPU: python -m benchmarks.gpu_suite."""
