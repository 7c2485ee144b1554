"""Colours and policies against Pillow, and Keras' two against Keras' formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import own_key, photographs, run
from PIL import Image, ImageEnhance, ImageOps

from cifar_jax import augment
from cifar_jax.augment import levels, policies

COUNT = 2 * len(policies.NAMES)


@pytest.fixture(scope="module")
def images():
    """Smooth ones, and the extremes: one grey level, two, few, and noise."""
    images = photographs(COUNT, 32)
    images[0] = 77
    images[1, :, :16], images[1, :, 16:] = 10, 240
    images[2] //= 64
    images[3] = np.random.default_rng(0).integers(0, 256, images[3].shape)
    images[4] = images[4] // 4 + 100
    return images


def pillow(images, function, *per_image):
    out = [
        np.asarray(function(Image.fromarray(image), *numbers))
        for image, *numbers in zip(images, *per_image, strict=True)
    ]
    return np.stack(out).astype(int)


def pillow_operation(name, numbers, image):
    return getattr(ImageOps, name)(image, *numbers)


def assert_levels_equal(ours, wanted, greatest=1, share=0.005):
    """Equal but for a small share of pixels that differ by a grey level."""
    away = np.abs(np.asarray(ours).astype(int) - wanted)
    assert away.max() <= greatest and (away > 0).mean() <= share


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "invert"])
def test_tables_without_a_number_equal_pillows(images, name):
    counts = levels.histogram(images)
    table = levels.invert()[None, None] if name == "invert" else getattr(levels, name)(counts)
    table = jnp.broadcast_to(table, (COUNT, 3, 256))
    wanted = pillow(images, getattr(ImageOps, name))
    # Pillow's autocontrast rounds 254.999... down now and then.
    share = 0.02 if name == "autocontrast" else 0
    assert_levels_equal(levels.look_up(table, images), wanted, share=share)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("posterize", np.arange(COUNT) % 8 + 1), ("solarize", np.linspace(0, 256, COUNT))],
)
def test_tables_of_a_number_equal_pillows(images, name, numbers):
    table = jnp.broadcast_to(getattr(levels, name)(jnp.array(numbers)), (COUNT, 3, 256))
    wanted = pillow(images, getattr(ImageOps, name), numbers.tolist())
    assert_levels_equal(levels.look_up(table, images), wanted, share=0)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_enhancements_equal_pillows(images, name):
    factor = np.linspace(0, 2.5, COUNT, dtype=np.float32)
    column = factor[:, None, None, None]
    if name in ("Brightness", "Contrast"):
        table = levels.brightness(factor)
        if name == "Contrast":
            table = levels.contrast(images, factor)
        ours = levels.look_up(jnp.broadcast_to(table, (COUNT, 3, 256)), images)
    else:
        other = levels.grey(images)[..., None] if name == "Color" else levels.smooth(images)
        ours = levels.blend(other, images, column)
    enhance = getattr(ImageEnhance, name)
    wanted = pillow(images, lambda image, by: enhance(image).enhance(by), factor.tolist())
    assert_levels_equal(ours, wanted)


def uniform(count, low, high):
    return np.asarray(jax.random.uniform(own_key(), (count,), minval=low, maxval=high))


@pytest.mark.parametrize(
    ("name", "pillows"),
    [
        ("brightness", "Brightness"),
        ("contrast", "Contrast"),
        ("saturation", "Color"),
        ("sharpness", "Sharpness"),
    ],
)
def test_operations_draw_their_strength(images, name, pillows):
    factor = uniform(COUNT, 0.4, 1.9)
    enhance = getattr(ImageEnhance, pillows)
    wanted = pillow(images, lambda image, by: enhance(image).enhance(by), factor.tolist())
    assert_levels_equal(run(f"{name}(0.4, 1.9)", images), wanted)
    assert factor.min() < 0.7 and factor.max() > 1.6


def test_operations_meet_the_images_they_choose(images):
    """Five times the same choice, of a half of the images."""

    def all_five(key, images):
        return [augment.OPS[name](key, images, *numbers) for name, numbers in arguments.items()]

    arguments = dict(autocontrast=(), equalize=(), invert=(), posterize=(3,), solarize=(90,))
    key = jax.random.key(0)
    chosen = np.asarray(jax.random.bernoulli(key, 0.5, (COUNT,)))[:, None, None, None]
    assert 5 < chosen.sum() < COUNT - 5
    out = jax.jit(all_five)(key, images)
    for ours, (name, numbers) in zip(out, arguments.items(), strict=True):
        operation = functools.partial(pillow_operation, name, numbers)
        wanted = pillow(images, operation)
        assert_levels_equal(ours, np.where(chosen, wanted, images), share=0.02)


def test_channel_shift_is_keras(images):
    """One number for all channels, cut off at the image's own extremes."""
    ours = run("channel_shift(60)", images)
    for image, out, number in zip(images, ours, uniform(COUNT, -60, 60), strict=True):
        wanted = np.clip(image.astype(np.float32) + number, image.min(), image.max())
        np.testing.assert_allclose(out, wanted, atol=1e-4)
    assert ours.dtype == np.float32


def test_brightness_cuts_down_to_whole_levels_as_keras(images):
    real = images + np.float32(0.75)
    real[images == 255] = 255
    ours = run("brightness(0.4, 1.9)", real)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, run("brightness(0.4, 1.9)", images))


def by_pillow(image, name, magnitude):
    """torchvision's _apply_op on a Pillow image, by the Pillow calls that it comes to."""

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


def assert_replays(images, drawn, ours):
    """Pillow, told what was drawn, comes to the same; a level that differs may move others."""
    replayed = []
    for image, operations, magnitudes in zip(images, *map(np.asarray, drawn), strict=True):
        image = Image.fromarray(image)
        for operation, magnitude in zip(operations, magnitudes.tolist(), strict=True):
            image = by_pillow(image, policies.NAMES[operation], magnitude)
        replayed.append(np.asarray(image).astype(int))
    away = np.abs(np.asarray(ours).astype(int) - np.stack(replayed))
    assert (away > 1).mean() < 0.002 and (away > 0).mean() < 0.01
    per_image = (away > 1).mean((1, 2, 3))
    assert per_image.max() < 0.03


@functools.cache
def many_draws(policy):
    """What a policy draws for a few thousand images; the first ones are replayed."""
    draw = dict(
        randaugment=functools.partial(policies.draw_randaugment, num_ops=2, magnitude=9),
        autoaugment=policies.draw_autoaugment,
    )[policy]
    shape = (4000, 32, 32, 3)
    return policies.Draw(
        *map(np.asarray, jax.jit(lambda key: draw(key, shape=shape))(jax.random.key(0)))
    )


apply = jax.jit(policies.apply)


def test_every_operation_of_a_policy_equals_pillows():
    """At full strength, both signs."""
    names = [name for name in policies.NAMES for _ in range(2)]
    magnitude = [policies._strength(name, 30, 31, (1, 32, 32, 3)) for name in names]
    for i, name in enumerate(names):
        if i % 2 and name in policies._SIGNED:
            magnitude[i] *= -1
    operation = np.array([policies.NAMES.index(name) for name in names], np.int32)
    nothing = np.zeros(len(names))
    drawn = policies.Draw(
        np.stack([operation, nothing], 1).astype(np.int32),
        np.stack([magnitude, nothing], 1).astype(np.float32),
    )
    images = photographs(len(names), 32, seed=3)
    ours = apply(drawn, images)
    assert_replays(images, drawn, ours)
    changed = (np.asarray(ours) != images).any((1, 2, 3))
    assert changed[2:].mean() > 0.9 and not changed[:2].any()


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_policies_replay_with_pillow(images, policy):
    drawn = policies.Draw(*(x[:COUNT] for x in many_draws(policy)))
    assert_replays(images, drawn, apply(drawn, images))


def test_policies_do_what_they_draw():
    """The same program as the parts that the other tests look at."""
    images = np.zeros((4, 32, 32, 3), np.uint8)
    for policy, more in (("randaugment", (2, 9)), ("autoaugment", ())):
        draw = getattr(policies, f"draw_{policy}")

        def parts(key, images, draw=draw, more=more):
            return policies.apply(draw(key, images.shape, *more), images)

        key = jax.random.key(0)
        programs = [jax.make_jaxpr(f)(key, images) for f in (augment.OPS[policy], parts)]
        assert str(programs[0]) == str(programs[1])


def test_policies_draw_for_each_image_independently():
    """Rounds of one image and of its neighbour: all correlations within 5 deviations of 0."""
    for policy in ("randaugment", "autoaugment"):
        operation = many_draws(policy).operation
        drawn = np.stack([operation[:-1, 0], operation[1:, 0], operation[1:, 1]])
        found = np.corrcoef(drawn)
        assert np.abs(found[0, 1:]).max() < 0.08
        if policy == "randaugment":  # the two of an AutoAugment pair belong together
            assert abs(found[1, 2]) < 0.08


def test_randaugment_draws_14_operations_evenly_with_torchvisions_magnitudes():
    operation, magnitude = (x.ravel() for x in many_draws("randaugment"))
    counts = np.bincount(operation, minlength=15)
    assert counts[14] == 0 and counts[:14].min() > 455 and counts[:14].max() < 690  # 571, 5 dev.
    wanted = {
        "Identity": 0, "ShearX": 0.09, "ShearY": 0.09, "TranslateX": 4, "TranslateY": 4,
        "Rotate": 9, "Brightness": 0.27, "Color": 0.27, "Contrast": 0.27, "Sharpness": 0.27,
        "Posterize": 7, "Solarize": 178.5, "AutoContrast": 0, "Equalize": 0,
    }  # fmt: skip
    for i, (name, number) in enumerate(wanted.items()):
        assert policies.NAMES[i] == name
        found = magnitude[operation == i]
        np.testing.assert_allclose(np.abs(found), number, rtol=1e-5)
        if 0 < i < 10:
            assert 0.3 < (found > 0).mean() < 0.7
        else:
            assert (found >= 0).all()


def test_autoaugment_has_the_papers_policy():
    """For each operation: how often it stands there, and the sums of its tenths of probability and
    of its magnitudes, times the number of its pair, added up from torchvision's list."""
    wanted = {
        "AutoContrast": (7, 942, 0), "Brightness": (4, 244, 265), "Color": (5, 435, 372),
        "Contrast": (2, 62, 76), "Equalize": (9, 648, 0), "Invert": (3, 25, 0),
        "Posterize": (1, 18, 42), "Rotate": (1, 14, 4), "Sharpness": (5, 161, 212),
        "ShearY": (2, 32, 74), "Solarize": (4, 381, 356), "TranslateX": (2, 61, 106),
        "TranslateY": (5, 607, 696),
    }  # fmt: skip
    found = {}
    for number, pair in enumerate(policies._PAIRS, 1):
        for name, *values in pair:
            tenths, magnitude = map(int, values)
            count, sum_tenths, sum_magnitudes = found.get(name, (0, 0, 0))
            weighted = sum_tenths + number * tenths, sum_magnitudes + number * magnitude
            found[name] = count + 1, *weighted
    assert found == wanted


def test_autoaugment_draws_its_pairs_by_their_probabilities():
    """Per operation: how often in a round, and the strengths that it may have."""
    operation, magnitude = many_draws("autoaugment")
    num = len(operation)
    assert len(policies._PAIRS) == 25 and all(len(pair) == 2 for pair in policies._PAIRS)
    for turn in (0, 1):
        wanted = np.zeros(15)
        for pair in policies._PAIRS:
            name, tenths, _ = pair[turn]
            wanted[policies.NAMES.index(name)] += int(tenths) / 10 / 25
        wanted[0] = 1 - wanted.sum()
        found = np.bincount(operation[:, turn], minlength=15) / num
        deviation = np.sqrt(wanted * (1 - wanted) / num)
        assert (np.abs(found - wanted) <= 5 * deviation).all()
    rotated = magnitude[operation == policies.NAMES.index("Rotate")]
    np.testing.assert_allclose(np.unique(rotated), [-20 / 3, 20 / 3], rtol=1e-5)
    moved = magnitude[operation == policies.NAMES.index("TranslateY")]
    assert set(np.abs(moved).tolist()) == {math.floor(150 / 331 * 32 * m / 9) for m in (3, 9)}
