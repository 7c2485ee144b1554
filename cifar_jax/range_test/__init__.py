"""Implements the learning rate range test (Smith, 2017) of `python -m cifar_jax.lr_range_test`.

sweep.py trains with a growing learning rate, suggestion.py derives learning rates from the curve,
plot.py draws it, and files.py writes the results.
"""
