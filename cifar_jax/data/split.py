"""Splits the official training images into training and validation images."""

import math

import numpy as np

from cifar_jax.errors import UserError


def train_val_indices(num_images: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits range(num_images) exactly like scikit-learn's train_test_split(test_size=fraction).

    The write-ups use scikit-learn; the same seed gives the same images in the same order.

    Args:
      num_images: The number of images.
      fraction: The fraction held out for validation, in [0, 1). The number of validation images is
        rounded up.
      seed: The seed, scikit-learn's random_state, in [0, 2**32).

    Returns:
      (train, val), disjoint int64 index arrays that together contain every index.

    Raises:
      UserError: If the fraction is out of range, or leaves no images for training.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction must be in [0, 1), got {fraction}")
    if fraction == 0:
        return np.arange(num_images), np.arange(0)
    num_val = math.ceil(fraction * num_images)
    if num_val == num_images:
        raise UserError(f"a validation fraction of {fraction} leaves no images for training")
    order = np.random.RandomState(seed).permutation(num_images)
    return order[num_val:], order[:num_val]
