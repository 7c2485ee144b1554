"""The learning rate range test (Smith, 2017) behind `python -m cifar_jax.lr_range_test`.

sweep.py trains with a growing rate, suggestion.py reads rates off the curve, plot.py draws it, and
files.py writes what is found.
"""
