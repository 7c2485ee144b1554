"""The networks of the prediction, and the sizes of their gradients and statistics."""

import functools
import math
from typing import NamedTuple

import jax
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.results import load_config
from cifar_jax import data, models
from cifar_jax.models.layers import BatchNorm
from cifar_jax.models.rngs import make_rngs

# All networks compute in this dtype; parameters and their updates are float32.
DTYPE = "bfloat16"
_DTYPE_BYTES, FLOAT32_BYTES = 2, 4
# The config of each network, and the network options that override it.
_NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "resnet18": ("resnet18", {}),
    "resnet18, width 256": ("resnet18", {"width": 256}),
    "resnet34": ("hybrid/resnet34", {}),
    "resnet50": ("callbacks/resnet50", {}),
    "vgg19": ("vgg19", {}),
}
NETWORKS = tuple(_NETWORKS)


class Sizes(NamedTuple):
    """What the GPUs exchange in a step.

    Attributes:
      num_params: The number of parameters.
      gradient_bytes: The size of the gradients under jit, as XLA compiles it. Those of convolutions
        are reduced in the dtype of the computation, and all others in float32.
      num_batch_norms: The number of BatchNorm layers.
      statistics_bytes: The size of the running statistics of all BatchNorm layers.
    """

    num_params: int
    gradient_bytes: int
    num_batch_norms: int
    statistics_bytes: int


def settings_of(network: str, batch_size: int) -> ConfigDict:
    """Returns the config that a network is compiled with.

    Args:
      network: One of NETWORKS.
      batch_size: The number of images per step, over all GPUs.
    """
    config, options = _NETWORKS[network]
    settings = load_config(config)
    settings.model.update(options)
    settings.update(batch_size=batch_size, dtype=DTYPE)
    return settings


def config_of(network: str) -> str | None:
    """Returns the config whose step times are those of a network; None if there is none."""
    config, options = _NETWORKS[network]
    return None if options else config


@functools.cache
def sizes(network: str) -> Sizes:
    """Counts what the GPUs exchange from the shapes of a network; nothing is computed."""
    settings = settings_of(network, 1)
    num_classes = data.num_classes(settings.data.name, settings.data.label)
    name, options = settings.model.name, settings.model.to_dict()
    del options["name"]

    def build():
        return models.create(name, num_classes, make_rngs(params=0), dtype=DTYPE, **options)

    model = nnx.eval_shape(build)
    modules = [module for _, module in nnx.iter_modules(model)]
    convolutions = [module for module in modules if isinstance(module, nnx.Conv)]
    num_params = _count(model, nnx.Param)
    num_reduced = sum(_count(convolution, nnx.Param) for convolution in convolutions)
    return Sizes(
        num_params=num_params,
        gradient_bytes=_DTYPE_BYTES * num_reduced + FLOAT32_BYTES * (num_params - num_reduced),
        num_batch_norms=sum(isinstance(module, BatchNorm) for module in modules),
        statistics_bytes=FLOAT32_BYTES * _count(model, nnx.BatchStat),
    )


def _count(module: nnx.Module, kind: type[nnx.Variable]) -> int:
    """Returns the number of elements in all arrays of a kind."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(module, kind)))
