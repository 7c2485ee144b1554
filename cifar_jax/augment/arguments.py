"""Validates the arguments of operations, which users write by hand in a config."""

import jax
import jax.numpy as jnp

from cifar_jax.errors import UserError, quote

# The upper bound of every integer argument: more pixels or operations than are useful.
_MAX = 1000


def check_number(what: str, value, low: float, high: float, unit: str = "") -> float:
    """Returns `value` as a float if it is a number in [low, high]; otherwise raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        unit = unit and f" {unit}"
        raise UserError(f"{what} needs a number from {low} to {high}{unit}, got {quote(value)}")
    return float(value)  # jax.random.bernoulli accepts only floats


def check_integer(what: str, value, low: int, unit: str = "") -> int:
    """Returns `value` if it is an integer of at least `low`; otherwise raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        unit = unit and f" of {unit}"
        raise UserError(f"{what} needs a whole number{unit}, {low} or more, got {quote(value)}")
    if value > _MAX:
        raise UserError(f"{what} needs a whole number up to {_MAX}, got {quote(value)}")
    return value


def check_range(what: str, value, low: float, high: float) -> tuple[float, float]:
    """Returns `value` if it is a pair (min, max) within [low, high]; otherwise raises UserError."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError(f"{what} needs two numbers, (min, max), got {quote(value)}")
    smallest, largest = (check_number(what, x, low, high) for x in value)
    if smallest > largest:
        raise UserError(f"{what} needs (min, max) with min <= max, got {quote(value)}")
    return smallest, largest


def check_pixel_value(what: str, value, channels: int) -> tuple[float, ...]:
    """Returns a pixel value for each channel, from one number for all or one for each.

    Raises:
      UserError: If `value` has the wrong length, or a number outside [0, 255].
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * channels
    if len(values) != channels:
        raise UserError(f"{what} needs 1 or {channels} pixel values, got {len(values)}")
    return tuple(check_number(what, v, 0, 255) for v in values)


def check_uint8_rgb(name: str, images: jax.Array) -> None:
    """Raises UserError unless `images` is [B, H, W, 3] uint8."""
    if images.dtype != jnp.uint8 or images.shape[-1] != 3:
        raise UserError(
            f"{name} needs uint8 images with 3 channels, got {images.dtype} with "
            f"{images.shape[-1]}: put it before operations that interpolate"
        )
