"""A JAX/Flax benchmark suite for CIFAR."""

__version__ = "0.1.0"
