"""Times each network: python -m benchmarks.throughput."""
