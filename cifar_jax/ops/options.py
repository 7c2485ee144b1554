"""The static arguments that the forms of a convolution share."""

from typing import Any, NamedTuple

from jax import lax
from jax.typing import DTypeLike

NHWC = ("NHWC", "HWIO", "NHWC")


class Options(NamedTuple):
    """The static arguments of a two-dimensional convolution, as lax takes them.

    Attributes:
      strides: Strides of height and width.
      padding: ((low, high), (low, high)) of height and width, in pixels.
      dilation: Dilation of the kernel's height and width.
      precision: Precision of the products.
      dtype: Dtype of the output, lax's preferred_element_type; None for that of the operands.
    """

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)
    precision: lax.PrecisionLike = None
    dtype: DTypeLike | None = None


def is_plain(images: Any, kernel: Any, options: Options) -> bool:
    """Returns whether strides and dilation are 1 and all dtypes are the same."""
    return (
        options.strides == options.dilation == (1, 1)
        and images.dtype == kernel.dtype
        and (options.dtype is None or options.dtype == images.dtype)
    )
