"""Helpers for the tests of cifar_jax.augment."""

import functools

import jax
import numpy as np

from cifar_jax import augment
from cifar_jax.data import archive

# The folder of the unpacked archives, if given by --source.
source = None


def photographs(count, size=16, seed=0):
    """Returns photograph-like images: [count, size, size, 3] uint8, smooth with a little noise.

    With `pytest --source FOLDER`, returns the upper left corners of real CIFAR-10 images instead.
    """
    rng = np.random.default_rng(seed)
    if source:
        return _real_images(source)[rng.integers(0, 10_000, count), :size, :size]
    coarse = rng.uniform(0, 255, (count, 5, 5, 3))
    i = np.linspace(0, 3.99, size)
    low, weight = i.astype(int), i % 1
    rows = coarse[:, low] * (1 - weight)[:, None, None] + coarse[:, low + 1] * weight[:, None, None]
    both = rows[:, :, low] * (1 - weight)[:, None] + rows[:, :, low + 1] * weight[:, None]
    return np.clip(both + rng.normal(0, 8, both.shape), 0, 255).astype(np.uint8)


@functools.cache
def _real_images(source):
    return archive.read("cifar10", source).images["test"]


def run(line, images, seed=0, **kwargs):
    """Applies the operations of `line` under jit, which is many times faster than without."""
    return np.asarray(jax.jit(augment.parse(line))(jax.random.key(seed), images, **kwargs))


def op_key(seed=0, position=0):
    """Returns the key that `run` passes to the operation at `position` of the line."""
    return jax.random.fold_in(jax.random.key(seed), position)
