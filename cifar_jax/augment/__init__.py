"""Augmentation on the device: pure functions of (key, images), composed from one line of config.

`parse("flip|crop(4)")` gives one function that flips, then crops. An operation draws from its key
for the whole batch, independently for each image; under jit a batch that is sharded over devices
draws the same numbers. Adding an operation is one function `name(key, images, *arguments)` in OPS
and one test; one that takes `index` or `epoch` as keyword-only arguments receives them.

`python -m cifar_jax.augment sheet.png` draws what each operation does.
"""

import ast
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cifar_jax.augment.color import (
    autocontrast,
    brightness,
    channel_shift,
    contrast,
    equalize,
    invert,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from cifar_jax.augment.erase import cutout, random_erasing
from cifar_jax.augment.geometry import alternating_flip, crop, flip, translate, vertical_flip
from cifar_jax.augment.mix import MIXES, Mix
from cifar_jax.augment.policies import autoaugment, randaugment
from cifar_jax.augment.warp import affine, rotation, shear, shift, zoom
from cifar_jax.errors import UserError, unknown

Augment = Callable[..., jax.Array]

OPS: dict[str, Callable[..., jax.Array]] = {
    function.__name__: function
    for function in (
        flip,
        vertical_flip,
        alternating_flip,
        crop,
        translate,
        affine,
        shift,
        rotation,
        shear,
        zoom,
        channel_shift,
        brightness,
        contrast,
        saturation,
        sharpness,
        autocontrast,
        equalize,
        invert,
        posterize,
        solarize,
        cutout,
        random_erasing,
        randaugment,
        autoaugment,
    )
}


class _Call(NamedTuple):
    """An operation with its arguments; `needs` of "index" and "epoch" what it wants besides."""

    name: str
    function: Callable[..., Any]
    args: list
    kwargs: dict
    needs: list[str]


def parse(line: str) -> Augment:
    """Builds the composition of operations that `line` names, in their order.

    Args:
      line: names from OPS, with literal arguments where wanted, separated by "|":
        "flip|crop(4, mode='reflect')". The empty line leaves images as they are.

    Returns:
      A function (key [], images [B, H, W, C] in [0, 255], index=None, epoch=None) to images of
      the same shape and range; their dtype stays, but operations that interpolate and channel_shift
      return float32. index: [B] int32, each image's place in the data set; epoch: [B] or [] int32,
      from 0; it raises ValueError where an operation needs them and they are missing.

    Raises:
      UserError: for an unknown operation, a wrong argument or a line that is no such list.
    """
    calls = [_parse_one(part.strip(), OPS) for part in line.split("|") if part.strip()]

    def augment(key: jax.Array, images: jax.Array, index=None, epoch=None) -> jax.Array:
        place = {"index": index, "epoch": epoch}
        for i, call in enumerate(calls):
            missing = [name for name in call.needs if place[name] is None]
            if missing:
                raise ValueError(f"{call.name} needs {' and '.join(missing)}, which was not given")
            needed = {name: place[name] for name in call.needs}
            own_key = jax.random.fold_in(key, i)
            images = call.function(own_key, images, *call.args, **call.kwargs, **needed)
        return images

    return augment


def is_mix(line: str) -> bool:
    """Whether a line names an operation of MIXES, not of OPS."""
    return line.split("(")[0].strip() in MIXES


def parse_mix(line: str) -> Mix | None:
    """Builds the operation of MIXES that `line` names, as in "mixup(0.2)"; None for no line.

    Returns:
      A function (key [], images [B, H, W, C]) to `mix.Mixed`: images, and how the loss mixes
      labels.

    Raises:
      UserError: for an unknown operation, a wrong argument or a line that is no such call.
    """
    if not line.strip():
        return None
    call = _parse_one(line.strip(), MIXES)
    return lambda key, images: call.function(key, images, *call.args, **call.kwargs)


def _parse_one(text: str, known: dict[str, Callable]) -> _Call:
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = call.func.id
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise UserError(
            f"augmentation {text!r} is neither a name nor a call with plain values, as in crop(4)"
        ) from error
    for others, field in ((OPS, "augment.ops"), (MIXES, "augment.mix")):
        if name not in known and name in others:
            raise UserError(f"{name} belongs to {field}")
    if name not in known:
        raise unknown("augmentation", name, known)
    signature = inspect.signature(known[name])
    needs = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    try:
        signature.bind(None, None, *args, **kwargs, **dict.fromkeys(needs))
    except TypeError as error:
        raise UserError(f"augmentation {text!r}: {error}") from error
    return _Call(name, known[name], args, kwargs, needs)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array, dtype=jnp.float32) -> jax.Array:
    """Scales images to (image / 255 - mean) / std.

    Args:
      images: [B, H, W, C] in [0, 255], any dtype.
      mean: [C] or a number, in [0, 1].
      std: likewise.
      dtype: of the result; the arithmetic is float32.
    """
    mean = jnp.asarray(mean, jnp.float32)
    std = jnp.asarray(std, jnp.float32)
    return ((images.astype(jnp.float32) / 255.0 - mean) / std).astype(dtype)
