"""Operations that mix each image with another of the batch, and so need the loss to mix labels.

A mix returns (images, partner, share): with labels y the loss is
share * loss(y) + (1 - share) * loss(y[partner]). The partner is the batch in reverse order: in an
order that is drawn anew for every epoch, as good as a permutation, and free. (A middle image of an
odd batch is its own partner: it stays.) Every image draws a share of its own, where the authors'
programs draw one for the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import number
from cifar_jax.augment.erase import boxes


class Mixed(NamedTuple):
    """What a mix returns.

    Attributes:
      images: [B, H, W, C], of the range that was given.
      partner: [B] int32, with which image of the batch each was mixed.
      share: [B] float32 in [0, 1], how much of each is its own.
    """

    images: jax.Array
    partner: jax.Array
    share: jax.Array


Mix = Callable[[jax.Array, jax.Array], Mixed]


def mixup(key: jax.Array, images: jax.Array, alpha: float = 0.2) -> Mixed:
    """Averages each image with its partner: Zhang et al. (2018), "mixup".

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      alpha: the share is drawn from Beta(alpha, alpha); 0.01 to 100.

    Returns:
      The images are float32.
    """
    number("mixup", alpha, 0.01, 100)
    share = _draw_share(key, images.shape[0], alpha)
    images = images.astype(jnp.float32)
    own = share[:, None, None, None]
    return Mixed(own * images + (1 - own) * images[::-1], _partner(images), share)


def cutmix(key: jax.Array, images: jax.Array, alpha: float = 1.0) -> Mixed:
    """Puts a box of its partner into each image: Yun et al. (2019), "CutMix".

    Of the box, centred anywhere and cut off at the border, the share is the pixels that are left.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      alpha: the share that an uncut box leaves is drawn from Beta(alpha, alpha).
    """
    number("cutmix", alpha, 0.01, 100)
    batch, height, width = images.shape[:3]
    limits = jnp.array([height, width])
    share_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - _draw_share(share_key, batch, alpha))
    half = (side[:, None] * limits).astype(jnp.int32) // 2
    centre = jax.random.randint(centre_key, (batch, 2), 0, limits)
    start, stop = (jnp.clip(x, 0, limits) for x in (centre - half, centre + half))
    box = boxes(*start.T, *(stop - start).T, height, width)[..., None]
    share = 1 - jnp.mean(box, axis=(1, 2, 3), dtype=jnp.float32)
    return Mixed(jnp.where(box, images[::-1], images), _partner(images), share)


MIXES: dict[str, Callable[..., Mixed]] = {"mixup": mixup, "cutmix": cutmix}


def _partner(images: jax.Array) -> jax.Array:
    return jnp.arange(images.shape[0], dtype=jnp.int32)[::-1]


def _draw_share(key: jax.Array, count: int, alpha: float) -> jax.Array:
    """Draws `count` numbers from Beta(alpha, alpha), float32."""
    if alpha == 1:
        return jax.random.uniform(key, (count,))
    return jax.random.beta(key, alpha, alpha, (count,))
