"""The validation split."""

import math

import numpy as np

from cifar_jax.errors import UserError


def train_val_indices(num_images: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits range(num_images) as scikit-learn's train_test_split(test_size=fraction) does.

    The write-ups split with scikit-learn; the same seed gives the same images in the same order.

    Args:
        num_images: how many there are.
        fraction: of the images to validate on, in [0, 1); rounded up to a whole image.
        seed: in [0, 2**32), scikit-learn's random_state.

    Returns:
        (train, val): int64 indices, disjoint, together all of them.

    Raises:
        UserError: the fraction is out of range, or leaves nothing to train on.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction must be in [0, 1), got {fraction}")
    if fraction == 0:
        return np.arange(num_images), np.arange(0)
    num_val = math.ceil(fraction * num_images)
    if num_val == num_images:
        raise UserError(f"a validation fraction of {fraction} leaves no image to train on")
    order = np.random.RandomState(seed).permutation(num_images)
    return order[num_val:], order[:num_val]
