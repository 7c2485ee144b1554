"""The cases that can be compared: networks with a PyTorch version."""

from benchmarks import torch_models
from benchmarks.throughput import cases
from cifar_jax import experiment, models
from cifar_jax.errors import UserError


def names() -> list[str]:
    """Returns the names of the networks that have a PyTorch version."""
    return [name for name in cases.names() if _is_comparable(name)]


def _is_comparable(name: str) -> bool:
    return name in models.MODELS and torch_models.find(name) is not None


def parse_case(text: str) -> tuple[str, int, str]:
    """Returns the network, batch size and dtype of a case such as "cnn3:128:bfloat16".

    Raises:
      UserError: If the network or the dtype is unknown, the network has no PyTorch version, or the
        batch size is not from 1 to 50,000.
    """
    name, settings = cases.parse_case(text)
    if not _is_comparable(name):
        raise UserError(
            f"{name!r} cannot be compared: benchmarks/torch_models has no PyTorch version of it"
        )
    return name, settings.batch_size, experiment.resolved(settings).dtype
