"""Stems that whiten patches of 2x2 pixels, computed from training images and never trained.

The filters are the eigenvectors of the patches' second moment, divided by the square root of their
eigenvalues, and the negatives of these: 24 filters for images with three channels. On the images
that they were computed from, the first 12 outputs are uncorrelated and have a second moment of
about 1. Such stems are from Page, "How to Train Your ResNet 8" (2019), tysam-code/hlb-CIFAR10 and
KellerJordan/cifar10-airbench.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from cifar_jax.models.layers import Conv, DenseHead, Paths, stage_groups, torch_init
from cifar_jax.ops.conv import conv_general_dilated

# Added to the eigenvalues by airbench and its descendants, for normalized images.
EPS = 5e-4
# Number of images whose patches are in memory at the same time: 23 MB, instead of the 231 MB of
# 5,000 images.
_IMAGES_PER_STEP = 500


def whitening_kernel(images: jax.Array, *, eps: float, centered: bool = False) -> jax.Array:
    """Returns the kernel [2, 2, C, 8 C] of a convolution that whitens patches of 2x2 pixels.

    The first 4 C filters are ordered by eigenvalue, the largest first; the others are their
    negatives. Order and signs matter only if the next convolution has fewer filters, because as a
    partial identity it initially drops the last inputs: see dirac.py. The function can be jitted
    and computes in float32.

    An eigenvector's sign is arbitrary and differs between devices and libraries. Here, the first
    entry, the top left pixel's first channel, is not negative; otherwise two devices would train
    networks with permuted channels. The entry of largest magnitude is no alternative: most
    eigenvectors of natural images are antisymmetric, and their two largest entries have opposite
    signs and differ by as little as 0.001%. On CIFAR-10 and CIFAR-100, the first entries are at
    least 0.15, and rounding errors at most 1e-4.

    Args:
      images: Normalized images [N, H, W, C], float32, with H and W at least 2.
      eps: Number added to the eigenvalues, above 0.
      centered: Whether to use the covariance instead of the second moment about 0.
    """
    values, vectors = jnp.linalg.eigh(_patch_moment(images, centered))  # ascending
    # Rounding can make an eigenvalue of 0 negative.
    filters = jnp.flip(vectors * lax.rsqrt(jnp.maximum(values, 0) + eps), axis=1)
    filters = jnp.where(filters[0] < 0, -filters, filters)
    filters = jnp.concatenate([filters, -filters], axis=1)
    return filters.reshape(2, 2, images.shape[-1], -1)


def _patch_moment(images: jax.Array, centered: bool) -> jax.Array:
    """Returns the second moment [4 C, 4 C] of all patches, entries ordered by row, column, channel.

    The moment is averaged over the moments of the images, which is more accurate than one sum over
    millions of patches.
    """
    if centered:
        # The covariance does not depend on this shift, but its rounding error does.
        images = images - images.mean((0, 1, 2))

    def moments(image):
        height, width, _ = (size - 1 for size in image.shape)
        patches = jnp.concatenate(
            [image[i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)], axis=-1
        )
        # GPUs would round float32 to TF32.
        second = jnp.einsum("hwp,hwq->pq", patches, patches, precision=lax.Precision.HIGHEST)
        return patches.mean((0, 1)), second / (height * width)

    mean, second = (
        x.mean(0) for x in lax.map(moments, images, batch_size=min(_IMAGES_PER_STEP, len(images)))
    )
    return second - jnp.outer(mean, mean) if centered else second


def whitening_conv(*, bias_init, dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """Returns the stem: [B, S, S, 3] to [B, S - 1, S - 1, 24], without gradient of its kernel.

    The kernel is random until it is replaced by that of `whitening_kernel`.

    Args:
      bias_init: Initializer of the bias, which is trained.
      dtype: Dtype of the computation.
      rngs: The `params` stream initializes kernel and bias.
    """
    return Conv(
        3, 24, (2, 2), padding="VALID", kernel_init=torch_init, bias_init=bias_init,
        conv_general_dilated=_conv_without_kernel_gradient, dtype=dtype, rngs=rngs,
    )  # fmt: skip


def _conv_without_kernel_gradient(images, kernel, *args, **options):
    return conv_general_dilated(images, lax.stop_gradient(kernel), *args, **options)


class WhitenedNetwork(DenseHead):
    """A network with the stem `conv_stem` and a head whose logits are scaled.

    Subclasses define the body, `features`, and set `conv_stem`, `blocks`, `dense` and
    `logit_scale`.
    """

    # Whether the kernel is computed from the covariance of the patches.
    centered = False

    def classify(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for features [B, D]; rngs is unused."""
        del rngs
        return self.logit_scale * self.dense(features)

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the blocks (the last one first) and the stem."""
        return stage_groups((1,) * len(self.blocks), stem=(("conv_stem",),))

    def frozen_paths(self) -> Paths:
        """Returns the prefixes of the parameters that never train."""
        return (("conv_stem", "kernel"),)

    def whiten(self, images: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Returns the parameters to replace before training, as in nnx.to_pure_dict.

        Args:
          images: Training images [N, S, S, 3], float32, normalized as for training and not
            augmented; the published runs use the first 5,000.
        """
        kernel = whitening_kernel(images, eps=EPS, centered=self.centered)
        return {"conv_stem": {"kernel": kernel}}
