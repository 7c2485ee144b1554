"""RandAugment and AutoAugment: several of Pillow's operations on each image, drawn by a policy.

A batch holds images with every operation, and XLA would compute all of them for each image. So an
operation here is one of three: a map of places (one look-up of pixels), a table of grey levels (one
look-up of levels) or a blend with another image; a round does each of the three once for the whole
batch, and images that drew another kind pass through unchanged.

Operations, magnitudes and probabilities are those of torchvision's RandAugment and AutoAugment on
Pillow images, with nearest interpolation and black outside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.augment import levels
from cifar_jax.augment.arguments import number, whole, whole_levels

# RandAugment draws among all but the last.
NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
_SIGNED = NAMES[1:10]
_BINS = 31

# Cubuk et al. (2019), the policy for CIFAR-10: two times operation, tenths of probability,
# magnitude of 0 to 9.
_CIFAR10 = """
    Invert 1 0, Contrast 2 6         | Rotate 7 2, TranslateX 3 9
    Sharpness 8 1, Sharpness 9 3     | ShearY 5 8, TranslateY 7 9
    AutoContrast 5 0, Equalize 9 0   | ShearY 2 7, Posterize 3 7
    Color 4 3, Brightness 6 7        | Sharpness 3 9, Brightness 7 9
    Equalize 6 0, Equalize 5 0       | Contrast 6 7, Sharpness 6 5
    Color 7 7, TranslateX 5 8        | Equalize 3 0, AutoContrast 4 0
    TranslateY 4 3, Sharpness 2 6    | Brightness 9 6, Color 2 8
    Solarize 5 2, Invert 0 0         | Equalize 2 0, AutoContrast 6 0
    Equalize 2 0, Equalize 6 0       | Color 9 9, Equalize 6 0
    AutoContrast 8 0, Solarize 2 8   | Brightness 1 3, Color 7 0
    Solarize 4 5, AutoContrast 9 0   | TranslateY 9 9, TranslateY 7 9
    AutoContrast 9 0, Solarize 8 3   | Equalize 8 0, Invert 1 0
    TranslateY 7 9, AutoContrast 9 0
"""
_PAIRS = [
    [step.split() for step in pair.split(",")]
    for pair in _CIFAR10.strip().replace("|", "\n").splitlines()
]


class Draw(NamedTuple):
    """What was drawn for each image.

    Attributes:
      operation: [B, rounds] int32, places in NAMES.
      magnitude: [B, rounds] float32 with its sign: a slope, pixels, degrees, a factor less 1, bits
        or a threshold, as the operation wants; 0 where it wants none.
    """

    operation: jax.Array
    magnitude: jax.Array


def randaugment(
    key: jax.Array, images: jax.Array, num_ops: int = 2, magnitude: int = 9
) -> jax.Array:
    """Does `num_ops` operations one after the other, each drawn from 14, of one magnitude.

    Cubuk et al. (2020).

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      num_ops: rounds.
      magnitude: 0 to 30 for from nothing to the most.
    """
    whole_levels("randaugment", images)
    return apply(draw_randaugment(key, images.shape, num_ops, magnitude), images)


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Does the two operations of one of 25 pairs, each with a probability and a magnitude.

    Cubuk et al. (2019), the policy found on CIFAR-10; they use it for CIFAR-100 as well.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
    """
    whole_levels("autoaugment", images)
    return apply(draw_autoaugment(key, images.shape), images)


def draw_randaugment(key: jax.Array, shape: tuple, num_ops: int, magnitude: int) -> Draw:
    """Draws what `randaugment` does to images of `shape` [B, H, W, 3]."""
    whole("randaugment's num_ops", num_ops, 0)
    number("randaugment's magnitude", whole("randaugment's magnitude", magnitude, 0), 0, _BINS - 1)
    strengths = jnp.array([_strength(name, magnitude, _BINS, shape) for name in NAMES])

    which, sign = jax.random.split(key)
    operation = jax.random.randint(which, (shape[0], num_ops), 0, len(NAMES) - 1)
    return Draw(operation, strengths[operation] * _signs(sign, operation))


def draw_autoaugment(key: jax.Array, shape: tuple) -> Draw:
    """Draws what `autoaugment` does to images of `shape` [B, H, W, 3]."""
    operations, probabilities, strengths = (
        jnp.array([[field(*step) for step in pair] for pair in _PAIRS])
        for field in (
            lambda name, tenths, magnitude: NAMES.index(name),
            lambda name, tenths, magnitude: int(tenths) / 10,
            lambda name, tenths, magnitude: _strength(name, int(magnitude), 10, shape),
        )
    )

    which, happens, sign = jax.random.split(key, 3)
    pair = jax.random.randint(which, shape[:1], 0, len(_PAIRS))
    happening = jax.random.uniform(happens, (shape[0], 2)) < probabilities[pair]
    operation = jnp.where(happening, operations[pair], 0)
    magnitude = jnp.where(happening, strengths[pair] * _signs(sign, operation), 0)
    return Draw(operation, magnitude)


def apply(drawn: Draw, images: jax.Array) -> jax.Array:
    """Does what was drawn to images [B, H, W, 3] uint8, round by round."""

    def one_round(images, drawn):
        operation, magnitude, places = drawn
        tables = _tables(operation, magnitude, images)
        images = levels.look_up(tables, _blend(operation, magnitude, images))
        return _move(places, images), None

    operation, magnitude = drawn.operation.T, drawn.magnitude.T
    places = _places(operation, magnitude, *images.shape[1:3])
    # A loop: XLA's CPU compiler would compute a round again for each use that the next makes of it.
    return jax.lax.scan(one_round, images, (operation, magnitude, places))[0]


def _strength(name: str, magnitude: int, bins: int, shape: tuple) -> float:
    """The magnitude in the operation's own terms, without its sign."""
    share = magnitude / (bins - 1)
    return {
        "ShearX": 0.3 * share,
        "ShearY": 0.3 * share,
        "TranslateX": int(150 / 331 * shape[2] * share),
        "TranslateY": int(150 / 331 * shape[1] * share),
        "Rotate": 30 * share,
        "Posterize": 8 - np.round(4 * share),
        "Solarize": 255 * (1 - share),
    }.get(name, 0.9 * share if name in _SIGNED else 0.0)


def _signs(key: jax.Array, operation: jax.Array) -> jax.Array:
    signed = jnp.array([name in _SIGNED for name in NAMES])[operation]
    negative = signed & jax.random.bernoulli(key, shape=operation.shape)
    return jnp.where(negative, -1.0, 1.0)


def _is(operation: jax.Array, *names: str) -> jax.Array:
    return jnp.isin(operation, jnp.array([NAMES.index(name) for name in names]))


def _places(operation, magnitude, height, width) -> jax.Array:
    """The pixel that each pixel of the result shows, [..., H, W] int32; H * W for outside.

    Shear, translation and rotation as Image.transform and Image.rotate have them.
    """

    def of(*names):
        return jnp.where(_is(operation, *names), magnitude, 0.0)[..., None, None]

    # Pillow's pixels have their centres at halves; its shears leave the upper left corner.
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    under, over = y - height / 2, x - width / 2
    angle = jnp.deg2rad(of("Rotate"))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    rows = y + (of("ShearY") * x - of("TranslateY") + (cos - 1) * under + sin * over)
    columns = x + (of("ShearX") * y - of("TranslateX") + (cos - 1) * over - sin * under)
    i, j = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return jnp.where(inside, i * width + j, height * width)


def _move(places, images) -> jax.Array:
    """Looks every pixel up at its place [B, H, W]; black outside."""
    pixels = images.reshape(images.shape[0], -1, images.shape[-1])
    pixels = jnp.pad(pixels, ((0, 0), (0, 1), (0, 0)))
    return jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(pixels, places)


def _tables(operation, magnitude, images) -> jax.Array:
    """Tables [B, 3, 256] of whatever maps grey levels to grey levels, channel by channel."""
    counts = levels.histogram(images)
    tables = {
        "Brightness": levels.brightness(1 + magnitude),
        "Contrast": levels.contrast(images, 1 + magnitude),
        "Posterize": levels.posterize(jnp.clip(magnitude, 1, 8).astype(jnp.int32)),
        "Solarize": levels.solarize(magnitude),
        "AutoContrast": levels.autocontrast(counts),
        "Equalize": levels.equalize(counts),
        "Invert": levels.invert()[None, None],
    }
    others = ~_is(operation, *tables)
    chosen = jnp.stack([*(_is(operation, name) for name in tables), others], axis=1)
    tables = [*tables.values(), levels.LEVELS.astype(np.uint8)]
    tables = jnp.stack([jnp.broadcast_to(table, counts.shape) for table in tables], axis=1)
    # A reduction: XLA's CPU compiler would compute a choice again for each pixel that is looked up.
    return jnp.max(jnp.where(chosen[:, :, None, None], tables, 0), axis=1)


def _blend(operation, magnitude, images) -> jax.Array:
    """Color and Sharpness."""
    is_color, is_sharpness = (_is(operation, name) for name in ("Color", "Sharpness"))
    factor = jnp.where(is_color | is_sharpness, 1 + magnitude, 1.0)[:, None, None, None]
    grey = levels.grey(images)[..., None]
    other = jnp.where(is_color[:, None, None, None], grey, levels.smooth(images))
    return levels.blend(other, images, factor)
