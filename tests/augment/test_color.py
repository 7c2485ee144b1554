"""Compares color operations and policies with Pillow, or with Keras's formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import op_key, photographs, run
from PIL import Image, ImageEnhance, ImageOps

from cifar_jax import augment
from cifar_jax.augment import levels, policies

COUNT = 2 * len(policies.NAMES)


@pytest.fixture(scope="module")
def images():
    """Smooth images, and edge cases: one pixel value, two, few, a narrow range, and noise."""
    images = photographs(COUNT, 32)
    images[0] = 77
    images[1, :, :16], images[1, :, 16:] = 10, 240
    images[2] //= 64
    images[3] = np.random.default_rng(0).integers(0, 256, images[3].shape)
    images[4] = images[4] // 4 + 100
    return images


def map_pillow(images, function, *per_image):
    """Applies `function(image, *numbers)` to each image as a Pillow image; returns int."""
    out = [
        np.asarray(function(Image.fromarray(image), *numbers))
        for image, *numbers in zip(images, *per_image, strict=True)
    ]
    return np.stack(out).astype(int)


def apply_image_ops(name, numbers, image):
    return getattr(ImageOps, name)(image, *numbers)


def assert_pixels_equal(ours, expected, max_fraction=0.005):
    """Asserts equality, except that a small fraction of the pixel values may differ by 1."""
    difference = np.abs(np.asarray(ours).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() <= max_fraction


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "invert"])
def test_tables_without_a_parameter_equal_pillow(images, name):
    counts = levels.histogram(images)
    table = levels.invert()[None, None] if name == "invert" else getattr(levels, name)(counts)
    table = jnp.broadcast_to(table, (COUNT, 3, 256))
    expected = map_pillow(images, getattr(ImageOps, name))
    # Pillow's autocontrast sometimes rounds 254.999... down.
    max_fraction = 0.02 if name == "autocontrast" else 0
    assert_pixels_equal(levels.apply_tables(table, images), expected, max_fraction=max_fraction)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("posterize", np.arange(COUNT) % 8 + 1), ("solarize", np.linspace(0, 256, COUNT))],
)
def test_tables_with_a_parameter_equal_pillow(images, name, numbers):
    table = jnp.broadcast_to(getattr(levels, name)(jnp.array(numbers)), (COUNT, 3, 256))
    expected = map_pillow(images, getattr(ImageOps, name), numbers.tolist())
    assert_pixels_equal(levels.apply_tables(table, images), expected, max_fraction=0)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_enhancements_equal_pillow(images, name):
    factor = np.linspace(0, 2.5, COUNT, dtype=np.float32)
    column = factor[:, None, None, None]
    if name in ("Brightness", "Contrast"):
        table = levels.brightness(factor)
        if name == "Contrast":
            table = levels.contrast(images, factor)
        ours = levels.apply_tables(jnp.broadcast_to(table, (COUNT, 3, 256)), images)
    else:
        luminance = levels.luminance(images)[..., None]
        degenerate = luminance if name == "Color" else levels.smooth(images)
        ours = levels.blend(degenerate, images, column)
    enhance = getattr(ImageEnhance, name)
    expected = map_pillow(images, lambda image, by: enhance(image).enhance(by), factor.tolist())
    assert_pixels_equal(ours, expected)


def uniform(count, low, high):
    return np.asarray(jax.random.uniform(op_key(), (count,), minval=low, maxval=high))


@pytest.mark.parametrize(
    ("name", "pillow_name"),
    [
        ("brightness", "Brightness"),
        ("contrast", "Contrast"),
        ("saturation", "Color"),
        ("sharpness", "Sharpness"),
    ],
)
def test_operations_draw_a_factor_for_each_image(images, name, pillow_name):
    factor = uniform(COUNT, 0.4, 1.9)
    enhance = getattr(ImageEnhance, pillow_name)
    expected = map_pillow(images, lambda image, by: enhance(image).enhance(by), factor.tolist())
    assert_pixels_equal(run(f"{name}(0.4, 1.9)", images), expected)
    assert factor.min() < 0.7 and factor.max() > 1.6


def test_operations_change_only_the_chosen_images(images):
    """With the same key, all five operations choose the same half of the images."""

    def all_five(key, images):
        return [augment.OPS[name](key, images, *numbers) for name, numbers in arguments.items()]

    arguments = dict(autocontrast=(), equalize=(), invert=(), posterize=(3,), solarize=(90,))
    key = jax.random.key(0)
    chosen = np.asarray(jax.random.bernoulli(key, 0.5, (COUNT,)))[:, None, None, None]
    assert 5 < chosen.sum() < COUNT - 5
    out = jax.jit(all_five)(key, images)
    for ours, (name, numbers) in zip(out, arguments.items(), strict=True):
        operation = functools.partial(apply_image_ops, name, numbers)
        expected = map_pillow(images, operation)
        assert_pixels_equal(ours, np.where(chosen, expected, images), max_fraction=0.02)


def test_channel_shift_equals_keras(images):
    """Keras shifts all channels by one number and clips to the image's own extremes."""
    ours = run("channel_shift(60)", images)
    for image, out, number in zip(images, ours, uniform(COUNT, -60, 60), strict=True):
        expected = np.clip(image.astype(np.float32) + number, image.min(), image.max())
        np.testing.assert_allclose(out, expected, atol=1e-4)
    assert ours.dtype == np.float32


def test_brightness_truncates_to_integers_as_keras_does(images):
    fractional = images + np.float32(0.75)
    fractional[images == 255] = 255
    ours = run("brightness(0.4, 1.9)", fractional)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, run("brightness(0.4, 1.9)", images))


def apply_by_pillow(image, name, magnitude):
    """Makes the Pillow calls that torchvision's _apply_op makes for a Pillow image."""

    def transform(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    match name:
        case "Identity":
            return image
        case "ShearX":
            return transform(1, magnitude, 0, 0, 1, 0)
        case "ShearY":
            return transform(1, 0, 0, magnitude, 1, 0)
        case "TranslateX":
            return transform(1, 0, -int(magnitude), 0, 1, 0)
        case "TranslateY":
            return transform(1, 0, 0, 0, 1, -int(magnitude))
        case "Rotate":
            return image.rotate(magnitude)
        case "Posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "Solarize":
            return ImageOps.solarize(image, magnitude)
        case "AutoContrast" | "Equalize" | "Invert":
            return getattr(ImageOps, name.lower())(image)
    return getattr(ImageEnhance, name)(image).enhance(1 + magnitude)


def assert_pillow_agrees(images, drawn, ours):
    """Asserts that Pillow gives the same images for the drawn operations.

    A few pixels may differ by more than 1, because a difference of 1 in one round may grow in the
    next.
    """
    replayed = []
    for image, operations, magnitudes in zip(images, *map(np.asarray, drawn), strict=True):
        image = Image.fromarray(image)
        for operation, magnitude in zip(operations, magnitudes.tolist(), strict=True):
            image = apply_by_pillow(image, policies.NAMES[operation], magnitude)
        replayed.append(np.asarray(image).astype(int))
    difference = np.abs(np.asarray(ours).astype(int) - np.stack(replayed))
    assert (difference > 1).mean() < 0.002 and (difference > 0).mean() < 0.01
    per_image = (difference > 1).mean((1, 2, 3))
    assert per_image.max() < 0.03


@functools.cache
def many_draws(policy):
    """Returns what a policy draws for 4000 images."""
    draw = dict(
        randaugment=functools.partial(policies.draw_randaugment, num_ops=2, magnitude=9),
        autoaugment=policies.draw_autoaugment,
    )[policy]
    shape = (4000, 32, 32, 3)
    return policies.Draw(
        *map(np.asarray, jax.jit(lambda key: draw(key, shape=shape))(jax.random.key(0)))
    )


apply = jax.jit(policies.apply)


def test_every_policy_operation_equals_pillow():
    """Applies each operation at full strength, with both signs."""
    names = [name for name in policies.NAMES for _ in range(2)]
    magnitude = [policies._strength(name, 30, 31, (1, 32, 32, 3)) for name in names]
    for i, name in enumerate(names):
        if i % 2 and name in policies._SIGNED:
            magnitude[i] *= -1
    operation = np.array([policies.NAMES.index(name) for name in names], np.int32)
    identity = np.zeros(len(names))
    drawn = policies.Draw(
        np.stack([operation, identity], 1).astype(np.int32),
        np.stack([magnitude, identity], 1).astype(np.float32),
    )
    images = photographs(len(names), 32, seed=3)
    ours = apply(drawn, images)
    assert_pillow_agrees(images, drawn, ours)
    changed = (np.asarray(ours) != images).any((1, 2, 3))
    assert changed[2:].mean() > 0.9 and not changed[:2].any()


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_policies_equal_pillow_for_the_drawn_operations(images, policy):
    drawn = policies.Draw(*(x[:COUNT] for x in many_draws(policy)))
    assert_pillow_agrees(images, drawn, apply(drawn, images))


def test_policies_trace_to_draw_and_apply():
    """The other tests check the two parts; this one checks that a policy is their composition."""
    images = np.zeros((4, 32, 32, 3), np.uint8)
    for policy, arguments in (("randaugment", (2, 9)), ("autoaugment", ())):
        draw = getattr(policies, f"draw_{policy}")

        def draw_and_apply(key, images, draw=draw, arguments=arguments):
            return policies.apply(draw(key, images.shape, *arguments), images)

        key = jax.random.key(0)
        programs = [jax.make_jaxpr(f)(key, images) for f in (augment.OPS[policy], draw_and_apply)]
        assert str(programs[0]) == str(programs[1])


def test_policies_draw_for_each_image_independently():
    """Correlations between rounds and between images are within 5 standard deviations of 0."""
    for policy in ("randaugment", "autoaugment"):
        operation = many_draws(policy).operation
        drawn = np.stack([operation[:-1, 0], operation[1:, 0], operation[1:, 1]])
        correlations = np.corrcoef(drawn)
        assert np.abs(correlations[0, 1:]).max() < 0.08
        if policy == "randaugment":  # AutoAugment draws the operations of both rounds as a pair
            assert abs(correlations[1, 2]) < 0.08


def test_randaugment_draws_14_operations_uniformly_with_torchvisions_magnitudes():
    operation, magnitude = (x.ravel() for x in many_draws("randaugment"))
    counts = np.bincount(operation, minlength=15)
    assert (
        counts[14] == 0 and counts[:14].min() > 455 and counts[:14].max() < 690
    )  # 571 +- 5 standard deviations
    expected = {
        "Identity": 0, "ShearX": 0.09, "ShearY": 0.09, "TranslateX": 4, "TranslateY": 4,
        "Rotate": 9, "Brightness": 0.27, "Color": 0.27, "Contrast": 0.27, "Sharpness": 0.27,
        "Posterize": 7, "Solarize": 178.5, "AutoContrast": 0, "Equalize": 0,
    }  # fmt: skip
    for i, (name, number) in enumerate(expected.items()):
        assert policies.NAMES[i] == name
        magnitudes = magnitude[operation == i]
        np.testing.assert_allclose(np.abs(magnitudes), number, rtol=1e-5)
        if 0 < i < 10:  # the signed operations
            assert 0.3 < (magnitudes > 0).mean() < 0.7
        else:
            assert (magnitudes >= 0).all()


def test_autoaugment_has_the_papers_policy():
    """Compares checksums of each operation with those of torchvision's list.

    They are the number of occurrences, and the sums of the probabilities (in tenths) and of the
    magnitudes, each weighted by the index of the pair.
    """
    expected = {
        "AutoContrast": (7, 942, 0), "Brightness": (4, 244, 265), "Color": (5, 435, 372),
        "Contrast": (2, 62, 76), "Equalize": (9, 648, 0), "Invert": (3, 25, 0),
        "Posterize": (1, 18, 42), "Rotate": (1, 14, 4), "Sharpness": (5, 161, 212),
        "ShearY": (2, 32, 74), "Solarize": (4, 381, 356), "TranslateX": (2, 61, 106),
        "TranslateY": (5, 607, 696),
    }  # fmt: skip
    checksums = {}
    for number, pair in enumerate(policies._PAIRS, 1):
        for name, *values in pair:
            tenths, magnitude = map(int, values)
            count, sum_tenths, sum_magnitudes = checksums.get(name, (0, 0, 0))
            weighted = sum_tenths + number * tenths, sum_magnitudes + number * magnitude
            checksums[name] = count + 1, *weighted
    assert checksums == expected


def test_autoaugment_applies_operations_with_their_probabilities():
    """Checks the frequency of each operation in each round, and the magnitudes of two."""
    operation, magnitude = many_draws("autoaugment")
    num = len(operation)
    assert len(policies._PAIRS) == 25 and all(len(pair) == 2 for pair in policies._PAIRS)
    for position in (0, 1):
        expected = np.zeros(15)
        for pair in policies._PAIRS:
            name, tenths, _ = pair[position]
            expected[policies.NAMES.index(name)] += int(tenths) / 10 / 25
        expected[0] = 1 - expected.sum()
        frequencies = np.bincount(operation[:, position], minlength=15) / num
        deviation = np.sqrt(expected * (1 - expected) / num)
        assert (np.abs(frequencies - expected) <= 5 * deviation).all()
    rotated = magnitude[operation == policies.NAMES.index("Rotate")]
    np.testing.assert_allclose(np.unique(rotated), [-20 / 3, 20 / 3], rtol=1e-5)
    translated = magnitude[operation == policies.NAMES.index("TranslateY")]
    assert set(np.abs(translated).tolist()) == {math.floor(150 / 331 * 32 * m / 9) for m in (3, 9)}
