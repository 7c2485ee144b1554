"""Image augmentation on the device: pure functions of (key, images), composed from a config string.

`parse("flip|crop(4)")` returns a function that flips, then crops. An operation draws independent
random numbers for all images of the batch from one key; under jit, a batch that is sharded over
devices draws the same numbers as an unsharded one. To add an operation, write a function
`name(key, images, *arguments)`, list it in OPS and test it. An operation that declares `index` or
`epoch` as keyword-only arguments receives them.

`python -m cifar_jax.augment sheet.png` draws a contact sheet of all operations.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
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
from cifar_jax.augment.inputs import (
    NORMALIZATIONS,
    RESIZE_METHODS,
    Scaling,
    normalize,
    preprocess,
    scaling,
)
from cifar_jax.augment.mix import MIXES, Mix
from cifar_jax.augment.policies import autoaugment, randaugment
from cifar_jax.augment.views import VIEWS, make_views
from cifar_jax.augment.warp import affine, rotation, shear, shift, zoom
from cifar_jax.errors import UserError, quote, unknown

__all__ = ["MIXES", "NORMALIZATIONS", "OPS", "RESIZE_METHODS", "VIEWS", "Augment", "Scaling"]
__all__ += ["check", "is_mix", "make_views", "normalize", "parse", "parse_mix", "preprocess"]
__all__ += ["scaling"]

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
    """An operation with its arguments.

    Attributes:
      needs: The keyword-only arguments of the operation: "index", "epoch", both or neither.
    """

    name: str
    function: Callable[..., Any]
    args: list
    kwargs: dict
    needs: list[str]


def parse(line: str) -> Augment:
    """Builds the function that applies the operations of `line` from left to right.

    Args:
      line: Names from OPS, separated by "|", with optional literal arguments, as in
        "flip|crop(4, mode='reflect')". An empty line returns images unchanged.

    Returns:
      A function (key [], images [B, H, W, C] in [0, 255], index=None, epoch=None) that returns
      images of the same shape and range. The dtype is preserved, except that channel_shift and
      operations that interpolate return float32. The index, [B] int32, is each image's position in
      the data set; the epoch, [B] or [] int32, is counted from 0. The function raises ValueError if
      an operation needs one of these and it was not given.

    Raises:
      UserError: If an operation is unknown or would change nothing, an argument is invalid, or
        `line` cannot be parsed.
    """
    calls = []
    if line.strip():
        parts = line.split("|")
        if not all(map(str.strip, parts)):
            raise UserError(
                f"augmentation {quote(line)} has a '|' without an operation on both sides"
            )
        calls = [_parse_one(part.strip(), OPS) for part in parts]

    def augment(key: jax.Array, images: jax.Array, index=None, epoch=None) -> jax.Array:
        available = {"index": index, "epoch": epoch}
        for i, call in enumerate(calls):
            missing = [name for name in call.needs if available[name] is None]
            if missing:
                raise ValueError(f"{call.name} needs {' and '.join(missing)}, but got None")
            needed = {name: available[name] for name in call.needs}
            op_key = jax.random.fold_in(key, i)
            images = call.function(op_key, images, *call.args, **call.kwargs, **needed)
        return images

    return augment


def is_mix(line: str) -> bool:
    """Returns whether `line` names an operation from MIXES rather than OPS."""
    return line.split("(")[0].strip() in MIXES


def parse_mix(line: str) -> Mix | None:
    """Builds the operation from MIXES that `line` names, as in "mixup(0.2)".

    Returns:
      A function (key [], images [B, H, W, C]) that returns `mix.Mixed`: the mixed images, and how
      the loss has to mix their labels; None if `line` is empty.

    Raises:
      UserError: If the operation is unknown, an argument is invalid, or `line` cannot be parsed.
    """
    if not line.strip():
        return None
    call = _parse_one(line.strip(), MIXES)
    return lambda key, images: call.function(key, images, *call.args, **call.kwargs)


def check(line: str) -> None:
    """Checks the operations or the mix of `line` by tracing them, without computing anything.

    Raises:
      UserError: If `line` is invalid. Unlike `parse`, this includes arguments out of range.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    numbers = jax.ShapeDtypeStruct((2,), jnp.int32)
    if is_mix(line):
        jax.eval_shape(lambda key, images: parse_mix(line)(key, images).images, key, images)
    else:
        jax.eval_shape(parse(line), key, images, numbers, numbers)


def _parse_one(text: str, known: dict[str, Callable]) -> _Call:
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = call.func.id
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    # The parser raises the last two if the brackets are nested too deeply.
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as e:
        raise UserError(
            f"augmentation {quote(text)} is neither a name nor a call with literal arguments, "
            "as in crop(4)"
        ) from e
    for others, field in ((OPS, "augment.ops"), (MIXES, "augment.mix")):
        if name not in known and name in others:
            raise UserError(f"{name} belongs in {field}")
    if name not in known:
        raise unknown("augmentation", name, known)
    signature = inspect.signature(known[name])
    needs = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    try:
        bound = signature.bind(None, None, *args, **kwargs, **dict.fromkeys(needs))
    except TypeError as error:
        raise UserError(f"augmentation {quote(text)}: {error}") from error
    bound.apply_defaults()
    if _changes_nothing(bound.arguments):
        raise UserError(f"augmentation {quote(text)} changes nothing: remove it")
    return _Call(name, known[name], args, kwargs, needs)


# Arguments that disable an operation if one of them is 0, and those that do so if all of them are.
_SWITCHES = {"probability", "padding", "pixels", "degrees", "share", "reach", "size", "count"}
_SWITCHES |= {"num_ops"}
_REACHES = {"rotation", "width_shift", "height_shift", "shear", "zoom", "width", "height"}


def _changes_nothing(arguments: Mapping[str, Any]) -> bool:
    """Returns whether an operation with these arguments returns every image unchanged."""

    def is_zero(name: str) -> bool:
        return isinstance(arguments[name], int | float) and arguments[name] == 0

    reaches = _REACHES & arguments.keys()
    return (
        any(is_zero(name) for name in _SWITCHES & arguments.keys())
        or (bool(reaches) and all(map(is_zero, reaches)))
        or arguments.get("low") == arguments.get("high") == 1
        or arguments.get("bits") == 8
        or arguments.get("threshold") == 256
    )
