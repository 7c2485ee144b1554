"""PyTorch versions of the networks, used by equality tests and by `benchmarks.versus_torch`.

The version of a class in cifar_jax/models/FILE.py is the class of that name in FILE.py here. Its
modules and options have the same names, so that weights.py can copy parameters by name. The two
versions differ only in the layout of images and weights.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module, util

from torch import nn

from cifar_jax import models


def create(name: str, num_classes: int, **options) -> nn.Module:
    """Builds the PyTorch version of a network, which maps [B, 3, 32, 32] to [B, num_classes].

    Args:
      name: A key of cifar_jax.models.MODELS that has a PyTorch version; see `find`.
      num_classes: The number of logits.
      **options: The options of the network, as for cifar_jax.models.create.
    """
    return find(name)(num_classes, **options)


def find(name: str) -> Callable[..., nn.Module] | None:
    """Returns the factory of a network's PyTorch version, or None if it has none."""
    network, presets = _network(name)
    module = f"{__name__}.{_file(network)}"
    if util.find_spec(module) is None:
        return None
    version = getattr(import_module(module), network.__name__, None)
    return version and partial(version, **presets)


def _network(name: str) -> tuple[type, dict]:
    """Returns the class of a network in cifar_jax.models, and the options that its name implies."""
    factory = models.MODELS[name]
    if isinstance(factory, partial):
        return factory.func, factory.keywords
    return factory, {}


def _file(network: type) -> str:
    """Returns the name of the file that defines a network, without its suffix."""
    return network.__module__.rpartition(".")[2]
