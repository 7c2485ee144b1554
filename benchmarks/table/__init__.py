"""Builds the tables of README and docs from logs: python -m benchmarks.table."""
