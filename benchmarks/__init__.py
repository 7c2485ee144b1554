"""Measurements: each command appends its logs to benchmarks/results/ and prints a table."""
