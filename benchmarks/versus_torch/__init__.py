"""Compares training steps in JAX and PyTorch: python -m benchmarks.versus_torch."""
