"""Operations that mix each image with another one of the batch; the loss then mixes their labels.

A mix returns (images, partner, lam). For labels y, the loss is
lam * loss(y) + (1 - lam) * loss(y[partner]). Reversing the batch gives each image its partner.
Since the data is shuffled every epoch, this is as good as a random permutation, and costs nothing.
(In a batch of odd size, the middle image is its own partner and stays unchanged.) Each image draws
its own lam, whereas the authors' code draws one per batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from cifar_jax.augment.arguments import check_number
from cifar_jax.augment.erase import box_masks


class Mixed(NamedTuple):
    """The result of a mix.

    Attributes:
      images: [B, H, W, C], in the range of the input.
      partner: [B] int32, the index in the batch of each image's partner.
      lam: [B] float32 in [0, 1], the weight of the original image; 1 - lam is the partner's.
    """

    images: jax.Array
    partner: jax.Array
    lam: jax.Array


Mix = Callable[[jax.Array, jax.Array], Mixed]
# Number of entries in the table of quantiles.
_NUM_QUANTILES = 4096


def mixup(key: jax.Array, images: jax.Array, alpha: float = 0.2) -> Mixed:
    """Interpolates between each image and its partner.

    Zhang et al. (2018): "mixup: Beyond Empirical Risk Minimization".

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      alpha: Parameter of Beta(alpha, alpha), from which lam is drawn; from 0.01 to 100.

    Returns:
      `Mixed` with float32 images.
    """
    alpha = check_number("mixup", alpha, 0.01, 100)
    lam = _draw_lam(key, images.shape[0], alpha)
    images = images.astype(jnp.float32)
    weight = lam[:, None, None, None]
    return Mixed(weight * images + (1 - weight) * images[::-1], _partner(images), lam)


def cutmix(key: jax.Array, images: jax.Array, alpha: float = 1.0) -> Mixed:
    """Replaces a box of each image with the same box of its partner.

    Yun et al. (2019): "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features". The center of the box is uniform over the image, and the box is clipped at the
    border. lam is the fraction of pixels outside the clipped box.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      alpha: Parameter of Beta(alpha, alpha), from which the fraction of pixels outside the
        unclipped box is drawn; from 0.01 to 100.

    Returns:
      `Mixed` with images of the input dtype.
    """
    alpha = check_number("cutmix", alpha, 0.01, 100)
    batch, height, width = images.shape[:3]
    limits = jnp.array([height, width])
    lam_key, center_key = jax.random.split(key)
    side = jnp.sqrt(1 - _draw_lam(lam_key, batch, alpha))
    half = (side[:, None] * limits).astype(jnp.int32) // 2
    center = jax.random.randint(center_key, (batch, 2), 0, limits)
    start, stop = (jnp.clip(x, 0, limits) for x in (center - half, center + half))
    box = box_masks(*start.T, *(stop - start).T, height, width)[..., None]
    lam = 1 - jnp.mean(box, axis=(1, 2, 3), dtype=jnp.float32)
    return Mixed(jnp.where(box, images[::-1], images), _partner(images), lam)


MIXES: dict[str, Callable[..., Mixed]] = {"mixup": mixup, "cutmix": cutmix}


def _partner(images: jax.Array) -> jax.Array:
    return jnp.arange(images.shape[0], dtype=jnp.int32)[::-1]


def _draw_lam(key: jax.Array, count: int, alpha: float) -> jax.Array:
    """Draws from Beta(alpha, alpha): [count] float32.

    The draws are quantiles of uniform numbers, interpolated in a table. jax.random.beta would
    reject draws in nested loops, which add 41 kernels to a training step on a GPU, some of which
    run several times.
    """
    uniform = jax.random.uniform(key, (count,))
    if alpha == 1:
        return uniform
    from scipy.special import betaincinv  # imported here because most runs do not need it

    probabilities = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    table = jnp.asarray(betaincinv(alpha, alpha, probabilities), jnp.float32)
    position = _NUM_QUANTILES * uniform - 0.5
    return map_coordinates(table, [position], order=1, mode="nearest")
