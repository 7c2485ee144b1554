"""Explains how to install the packages that only transfer learning and export need."""

import contextlib
from collections.abc import Iterator

from cifar_jax.errors import UserError


@contextlib.contextmanager
def needing(purpose: str) -> Iterator[None]:
    """Turns the ImportError of a missing package into a UserError.

    Args:
      purpose: What the package is needed for, as in "reading an HDF5 file".
    """
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{purpose} needs the package {error.name}: pip install -r requirements-transfer.txt"
        ) from error
