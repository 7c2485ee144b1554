"""Views of test images: their logits are averaged (test-time augmentation)."""

import jax
import jax.numpy as jnp

VIEWS = (1, 2, 6)


def make_views(images: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns several views of each image, and their weights, which add up to 1.

    Two views are the image and its mirror image, with equal weights. Six are these two, and the
    same of the image shifted diagonally by one pixel, up and left or down and right, with reflect
    padding. The four shifted views together have the weight 1/2 (Jordan, 2024, arXiv:2404.00498).

    Args:
      images: [B, H, W, C], any dtype.
      count: One of VIEWS.

    Returns:
      The views [count * B, H, W, C], ordered by view, and the weights [count] float32.
    """
    if count == 1:
        return images, jnp.ones(1)
    height, width = images.shape[1:3]
    shifted, weights = [images], [1.0]
    if count == 6:
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        shifted += [padded[:, :height, :width], padded[:, 2:, 2:]]
        weights = [0.5, 0.25, 0.25]
    views = [view for x in shifted for view in (x, x[:, :, ::-1])]
    return jnp.concatenate(views), jnp.repeat(jnp.float32(weights) / 2, 2)
