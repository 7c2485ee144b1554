"""RandAugment and AutoAugment: policies that apply random Pillow operations to each image.

Images of one batch need different operations, and XLA would compute every operation for every
image. Each operation is therefore expressed in one of three forms: a map of pixel positions (one
gather of pixels), a table of pixel values (one lookup), or a blend with another image. A round
computes each form once for the whole batch, and images whose operation has another form pass
through unchanged.

Operations, magnitudes and probabilities are those of torchvision's RandAugment and AutoAugment on
Pillow images, with nearest-neighbor interpolation and black fill.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.augment import levels
from cifar_jax.augment.arguments import check_integer, check_number, check_uint8_rgb

# RandAugment draws from all but the last.
NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
_SIGNED = NAMES[1:10]
_BINS = 31

# The policy for CIFAR-10 of Cubuk et al. (2019). A sub-policy is two steps, each with an operation,
# a probability in tenths, and a magnitude from 0 to 9.
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
    """The operations drawn for each image.

    Attributes:
      operation: [B, rounds] int32, indices into NAMES.
      magnitude: [B, rounds] float32, signed. The unit depends on the operation: a slope (shear),
        pixels, degrees, factor - 1 (enhancements), bits or a threshold; 0 if the operation has no
        magnitude.
    """

    operation: jax.Array
    magnitude: jax.Array


def randaugment(
    key: jax.Array, images: jax.Array, num_ops: int = 2, magnitude: int = 9
) -> jax.Array:
    """Applies `num_ops` operations in sequence, each drawn from 14, all with the same magnitude.

    Cubuk et al. (2020): "RandAugment: Practical Automated Data Augmentation with a Reduced Search
    Space".

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      num_ops: Number of operations per image.
      magnitude: An integer from 0 (weakest) to 30 (strongest).
    """
    check_uint8_rgb("randaugment", images)
    return apply(draw_randaugment(key, images.shape, num_ops, magnitude), images)


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies one of 25 sub-policies: two operations, each with a probability and a magnitude.

    Cubuk et al. (2019): "AutoAugment: Learning Augmentation Policies from Data". The policy was
    found on CIFAR-10; the authors use it for CIFAR-100 as well.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
    """
    check_uint8_rgb("autoaugment", images)
    return apply(draw_autoaugment(key, images.shape), images)


def draw_randaugment(key: jax.Array, shape: tuple, num_ops: int, magnitude: int) -> Draw:
    """Draws the operations of `randaugment` for images of `shape` [B, H, W, 3]."""
    check_integer("randaugment's num_ops", num_ops, 0)
    check_integer("randaugment's magnitude", magnitude, 0)
    check_number("randaugment's magnitude", magnitude, 0, _BINS - 1)
    strengths = jnp.array([_strength(name, magnitude, _BINS, shape) for name in NAMES])

    operation_key, sign_key = jax.random.split(key)
    operation = jax.random.randint(operation_key, (shape[0], num_ops), 0, len(NAMES) - 1)
    return Draw(operation, strengths[operation] * _signs(sign_key, operation))


def draw_autoaugment(key: jax.Array, shape: tuple) -> Draw:
    """Draws the operations of `autoaugment` for images of `shape` [B, H, W, 3]."""
    operations, probabilities, strengths = (
        jnp.array([[field(*step) for step in pair] for pair in _PAIRS])
        for field in (
            lambda name, tenths, magnitude: NAMES.index(name),
            lambda name, tenths, magnitude: int(tenths) / 10,
            lambda name, tenths, magnitude: _strength(name, int(magnitude), 10, shape),
        )
    )

    pair_key, probability_key, sign_key = jax.random.split(key, 3)
    pair = jax.random.randint(pair_key, shape[:1], 0, len(_PAIRS))
    is_applied = jax.random.uniform(probability_key, (shape[0], 2)) < probabilities[pair]
    operation = jnp.where(is_applied, operations[pair], 0)
    magnitude = jnp.where(is_applied, strengths[pair] * _signs(sign_key, operation), 0)
    return Draw(operation, magnitude)


def apply(drawn: Draw, images: jax.Array) -> jax.Array:
    """Applies the drawn operations to images [B, H, W, 3] uint8, one round at a time."""

    def one_round(images, drawn):
        operation, magnitude, sources = drawn
        tables = _tables(operation, magnitude, images)
        images = levels.apply_tables(tables, _blend(operation, magnitude, images))
        return _gather(sources, images), None

    operation, magnitude = drawn.operation.T, drawn.magnitude.T
    sources = _sources(operation, magnitude, *images.shape[1:3])
    # A scan, because in an unrolled loop, XLA's CPU compiler would recompute the result of a round
    # each time that the next round uses it.
    return jax.lax.scan(one_round, images, (operation, magnitude, sources))[0]


def _strength(name: str, magnitude: int, bins: int, shape: tuple) -> float:
    """Returns the unsigned magnitude in the units of the operation, see `Draw`."""
    fraction = magnitude / (bins - 1)
    return {
        "ShearX": 0.3 * fraction,
        "ShearY": 0.3 * fraction,
        "TranslateX": int(150 / 331 * shape[2] * fraction),
        "TranslateY": int(150 / 331 * shape[1] * fraction),
        "Rotate": 30 * fraction,
        "Posterize": 8 - np.round(4 * fraction),
        "Solarize": 255 * (1 - fraction),
    }.get(name, 0.9 * fraction if name in _SIGNED else 0.0)


def _signs(key: jax.Array, operation: jax.Array) -> jax.Array:
    """Draws 1 or -1 for each operation that has a sign; returns 1 for the others."""
    signed = jnp.array([name in _SIGNED for name in NAMES])[operation]
    negative = signed & jax.random.bernoulli(key, shape=operation.shape)
    return jnp.where(negative, -1.0, 1.0)


def _is(operation: jax.Array, *names: str) -> jax.Array:
    """Returns whether each operation is among `names`."""
    return jnp.isin(operation, jnp.array([NAMES.index(name) for name in names]))


def _sources(operation, magnitude, height, width) -> jax.Array:
    """Returns the flat index of the source of each output pixel: [..., H, W] int32.

    The index is H * W if the source lies outside the image. Shear, translation and rotation are
    those of Pillow's Image.transform and Image.rotate.
    """

    def magnitude_of(*names):
        return jnp.where(_is(operation, *names), magnitude, 0.0)[..., None, None]

    # Pillow's pixel centers are at half-integers, and its shears fix the upper left corner.
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    dy, dx = y - height / 2, x - width / 2  # from the center
    angle = jnp.deg2rad(magnitude_of("Rotate"))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    rows = y + (magnitude_of("ShearY") * x - magnitude_of("TranslateY") + (cos - 1) * dy + sin * dx)
    columns = x + (
        magnitude_of("ShearX") * y - magnitude_of("TranslateX") + (cos - 1) * dx - sin * dy
    )
    i, j = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return jnp.where(inside, i * width + j, height * width)


def _gather(sources, images) -> jax.Array:
    """Reads each pixel from its source, [B, H, W]; pixels from outside the image are black."""
    pixels = images.reshape(images.shape[0], -1, images.shape[-1])
    pixels = jnp.pad(pixels, ((0, 0), (0, 1), (0, 0)))
    return jax.vmap(lambda image, i: image.at[i].get(mode="promise_in_bounds"))(pixels, sources)


def _tables(operation, magnitude, images) -> jax.Array:
    """Returns the table of each image's operation, [B, 3, 256], or the identity if it has none."""
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
    tables = [*tables.values(), levels.PIXEL_VALUES.astype(np.uint8)]
    tables = jnp.stack([jnp.broadcast_to(table, counts.shape) for table in tables], axis=1)
    # A reduction, because XLA's CPU compiler would recompute a selection for each pixel looked up.
    return jnp.max(jnp.where(chosen[:, :, None, None], tables, 0), axis=1)


def _blend(operation, magnitude, images) -> jax.Array:
    """Applies Color and Sharpness; images with another operation are unchanged."""
    is_color, is_sharpness = (_is(operation, name) for name in ("Color", "Sharpness"))
    factor = jnp.where(is_color | is_sharpness, 1 + magnitude, 1.0)[:, None, None, None]
    grayscale = levels.luminance(images)[..., None]
    degenerate = jnp.where(is_color[:, None, None, None], grayscale, levels.smooth(images))
    return levels.blend(degenerate, images, factor)
