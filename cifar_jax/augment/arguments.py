"""Arguments of operations, checked at the door: they come from a line that a person wrote."""

import jax
import jax.numpy as jnp

from cifar_jax.errors import UserError


def number(what: str, value, low: float, high: float, unit: str = "") -> float:
    """Returns `value`, a number from `low` to `high`; raises UserError where it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        unit = unit and f" {unit}"
        raise UserError(f"{what} needs a number from {low} to {high}{unit}, not {value!r}")
    return value


def whole(what: str, value, low: int, unit: str = "") -> int:
    """Returns `value`, a whole number of at least `low`; raises UserError where it is not."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        unit = unit and f" of {unit}"
        raise UserError(f"{what} needs a whole number{unit}, {low} or more, not {value!r}")
    return value


def span(what: str, value, low: float, high: float) -> tuple[float, float]:
    """Returns `value`, two numbers in order within [low, high]; raises UserError otherwise."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError(f"{what} needs two numbers, (least, greatest), not {value!r}")
    least, greatest = (number(what, x, low, high) for x in value)
    if least > greatest:
        raise UserError(f"{what} needs the least before the greatest, not {value!r}")
    return least, greatest


def grey(what: str, value, channels: int) -> tuple[float, ...]:
    """Returns `value`, one grey level for all channels or one for each, as one for each."""
    levels = tuple(value) if isinstance(value, tuple | list) else (value,) * channels
    if len(levels) != channels:
        raise UserError(f"{what} needs 1 or {channels} grey levels, not {len(levels)}")
    return tuple(number(what, level, 0, 255) for level in levels)


def whole_levels(name: str, images: jax.Array) -> None:
    """Raises UserError where images are not [B, H, W, 3] uint8."""
    if images.dtype != jnp.uint8 or images.shape[-1] != 3:
        raise UserError(
            f"{name} needs uint8 images of 3 channels, not {images.dtype} of {images.shape[-1]}: "
            "put it before operations that interpolate"
        )
