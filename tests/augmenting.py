"""What the tests of the augment room share."""

import functools

import jax
import numpy as np

from cifar_jax import augment
from cifar_jax.data import archive

# The folder of the unpacked archives, where there is one.
source = None


def photographs(count, size=16, seed=0):
    """Smooth random images with a hint of noise, uint8: neighbours alike, as in real ones.

    With `pytest --source FOLDER` corners of real ones.
    """
    rng = np.random.default_rng(seed)
    if source:
        return _real_images(source)[rng.integers(0, 10_000, count), :size, :size]
    coarse = rng.uniform(0, 255, (count, 5, 5, 3))
    i = np.linspace(0, 3.99, size)
    low, share = i.astype(int), i % 1
    rows = coarse[:, low] * (1 - share)[:, None, None] + coarse[:, low + 1] * share[:, None, None]
    both = rows[:, :, low] * (1 - share)[:, None] + rows[:, :, low + 1] * share[:, None]
    return np.clip(both + rng.normal(0, 8, both.shape), 0, 255).astype(np.uint8)


@functools.cache
def _real_images(source):
    return archive.read("cifar10", source).images["test"]


def run(line, images, seed=0, **place):
    """Does what a line says, compiled: operation by operation takes many times longer."""
    return np.asarray(jax.jit(augment.parse(line))(jax.random.key(seed), images, **place))


def own_key(seed=0, place=0):
    """The key that `run` gives to the operation at that place of its line."""
    return jax.random.fold_in(jax.random.key(seed), place)
