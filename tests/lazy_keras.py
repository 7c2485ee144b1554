"""Keras on the PyTorch backend, imported at its first use.

The import takes four seconds, which both workers would otherwise spend while they collect tests.
All tests import Keras from here: a second module of its name would be another Keras.
"""

import importlib.util
import os
import sys

_spec = importlib.util.find_spec("keras")
if _spec is None:
    raise ModuleNotFoundError("No module named 'keras'")
# This must be set before Keras is imported.
os.environ["KERAS_BACKEND"] = "torch"
_spec.loader = importlib.util.LazyLoader(_spec.loader)
keras = sys.modules["keras"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(keras)
