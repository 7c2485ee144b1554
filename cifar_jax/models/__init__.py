"""The networks by name. Adding one is a file, a line in MODELS, a config and a pinned count."""

import inspect
from collections.abc import Callable
from functools import partial

from flax import nnx

from cifar_jax.errors import unknown
from cifar_jax.models.cnn2 import CNN2
from cifar_jax.models.cnn3 import CNN3
from cifar_jax.models.cnn4 import CNN4
from cifar_jax.models.resnet import ResNet

MODELS: dict[str, Callable[..., nnx.Module]] = {
    "cnn2": CNN2,
    "cnn3": CNN3,
    "cnn4": CNN4,
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
}


def create(name: str, num_classes: int, rngs: nnx.Rngs, **options) -> nnx.Module:
    """Builds a network: a module that maps images [B, 32, 32, 3] to logits [B, num_classes].

    Args:
      name: a key of MODELS.
      num_classes: number of logits.
      rngs: its `params` stream initialises the parameters.
      **options: keyword arguments of the network, `dtype` among them.

    Raises:
      UserError: for an unknown network or option.
    """
    for option in options:
        if option not in options_of(name):
            raise unknown(f"option of {name}", option, options_of(name))
    return MODELS[name](num_classes, rngs, **options)


def options_of(name: str) -> list[str]:
    """Returns the names of the options that `create` takes for this network."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    factory = MODELS[name]
    network = factory.func if isinstance(factory, partial) else factory
    parameters = inspect.signature(network.__init__).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
