import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import photographs, run
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax import augment, engine
from cifar_jax.errors import UserError

KEY = jax.random.key(0)

# Each line has several operations, because compiling them one by one would take a minute.
LINES = [
    "crop(2)|flip|vertical_flip|translate(1)|cutout(6, 2)|random_erasing(1.0)",
    "flip|affine(20, 0.2, 0.2, 10, 0.2)|channel_shift(20)|brightness(0.5, 1.5)",
    "contrast|saturation|sharpness|equalize|autocontrast|invert|posterize(3)|solarize",
    "alternating_flip|randaugment(1)",
]
INDEX, EPOCH = np.arange(16, dtype=np.int32) * 7, np.int32(3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)


def test_lines_cover_every_operation():
    named = {part.split("(")[0] for line in LINES for part in line.split("|")}
    cases_of_affine = {"shift", "rotation", "shear", "zoom"}
    tested_elsewhere = {"autoaugment"}  # in test_color.py
    assert named | cases_of_affine | tested_elsewhere == augment.OPS.keys()


@pytest.mark.parametrize("line", LINES)
def test_sharded_batch_equals_unsharded_and_keeps_shape_and_range(line):
    images = photographs(16)
    compiled = jax.jit(augment.parse(line))
    whole = np.asarray(compiled(KEY, images, INDEX, EPOCH))
    sharding = NamedSharding(engine.make_mesh(), P(engine.AXIS))
    sharded = compiled(KEY, *jax.device_put((images, INDEX), sharding), EPOCH)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_allclose(sharded, whole, atol=1e-3 if "affine" in line else 0)
    assert whole.shape == images.shape
    assert (whole != images).any((1, 2, 3)).mean() > 0.3
    assert whole.min() >= 0 and whole.max() <= 255
    assert whole.dtype == (np.float32 if "affine" in line else np.uint8)


def test_vmap_over_seeds_equals_single_seeds():
    images, seeds = photographs(4, 8), jax.vmap(jax.random.key)(jnp.array([1, 2]))
    both = jax.jit(jax.vmap(augment.parse("rotation"), in_axes=(0, None)))(seeds, images)
    for i, seed in enumerate((1, 2)):
        np.testing.assert_allclose(both[i], run("rotation", images, seed), atol=1e-3)


def test_parse_composes_in_order(images):
    def expected(key, images):
        keys = [jax.random.fold_in(key, i) for i in (0, 1)]
        return augment.flip(keys[1], augment.crop(keys[0], images, 2, "edge"), 1.0)

    out = run(" crop(2, mode='edge') | flip(probability=1.0) ", images)
    np.testing.assert_array_equal(out, jax.jit(expected)(KEY, images))


def test_an_empty_line_changes_nothing(images):
    np.testing.assert_array_equal(run("", images), images)


def test_missing_index_or_epoch_raises_if_an_operation_needs_it(images):
    composed = augment.parse("alternating_flip|flip")
    with pytest.raises(ValueError, match="alternating_flip needs index and epoch, but got None"):
        composed(KEY, images)
    with pytest.raises(ValueError, match="alternating_flip needs epoch, but got None"):
        composed(KEY, images, np.arange(600))
    with pytest.raises(UserError, match="index"):
        augment.parse("alternating_flip(index=3)")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flop", "unknown augmentation 'flop'; did you mean 'flip'"),
        ("crop(4", "neither a name nor a call"),
        ("crop(padding=x)", "neither a name nor a call"),
        ("crop(4, fill=3)", "unexpected keyword argument 'fill'"),
        ("flip.x", "neither a name nor a call"),
        ("crop(-1)", "crop needs a whole number of pixels"),
        ("crop('a')", "crop needs a whole number of pixels"),
        ("crop(4, 'mirror')", "unknown crop mode 'mirror'"),
        ("translate(1.5)", "translate needs a whole number of pixels, 0 or more, got 1.5"),
        ("flip(2)", "flip's probability needs a number from 0 to 1, got 2"),
        ("shift(3)", "width_shift needs a number from 0 to 1, got 3"),
        ("rotation(270)", "rotation needs a number from 0 to 180 degrees, got 270"),
        ("shear(90)", "shear needs a number from 0 to 89 degrees, got 90"),
        ("zoom(1)", "zoom needs a number from 0 to 0.99, got 1"),
        ("zoom('a')", "zoom needs a number from 0 to 0.99, got 'a'"),
        ("shift(fill='edge')", "unknown fill 'edge'"),
        ("shift(interpolation='cubic')", "unknown interpolation 'cubic'"),
        ("shift(fill='constant', value=300)", "value needs a number from 0 to 255, got 300"),
        (
            "brightness(1.2, 0.8)",
            r"brightness needs \(min, max\) with min <= max, got \(1.2, 0.8\)",
        ),
        ("channel_shift(-1)", "channel_shift needs a number from 0 to 255, got -1"),
        ("posterize(9)", "posterize needs a number from 1 to 8 bits, got 9"),
        (
            "shift|equalize",
            "equalize needs uint8 images with 3 channels, got float32 with 3: put it",
        ),
        ("shift|randaugment", "randaugment needs uint8 images"),
        ("randaugment(2, 31)", "randaugment's magnitude needs a number from 0 to 30, got 31"),
        ("cutout(8, fill=(0, 0))", "cutout's fill needs 1 or 3 pixel values, got 2"),
        ("cutout(8, fill=-1)", "cutout's fill needs a number from 0 to 255, got -1"),
        ("random_erasing(0.5, 0.2)", "random_erasing's scale needs two numbers"),
        ("flip|", r"'flip\|' has a '\|' without an operation on both sides"),
        ("|flip", "without an operation"),
        ("flip||flip", "without an operation"),
        ("|", "without an operation"),
        ("crop(0)", r"'crop\(0\)' changes nothing: remove it"),
        ("flip|affine()", "changes nothing"),
        ("affine(0, 0.0, zoom=0)", "changes nothing"),
        ("shift(0, 0)", "changes nothing"),
        ("rotation(0)", "changes nothing"),
        ("translate(0)", "changes nothing"),
        ("zoom(0)", "changes nothing"),
        ("brightness(1, 1.0)", "changes nothing"),
        ("channel_shift(0)", "changes nothing"),
        ("autocontrast(0)", "changes nothing"),
        ("posterize(8)", "changes nothing"),
        ("cutout(8, 0)", "changes nothing"),
        ("randaugment(0)", "changes nothing"),
        ("flip(float('nan'))", "neither a name nor a call"),
        ("flip(1e999)", "flip's probability needs a number from 0 to 1, got inf"),
        ("cutout(8, 5000)", "cutout's count needs a whole number up to 1000, got 5000"),
        ("crop(" + 500 * "(" + ")", "neither a name nor a call"),
        (
            "crop('" + 5000 * "x" + "')",
            "needs a whole number of pixels, 0 or more, got 'x+ ... x+'",
        ),
    ],
)
def test_invalid_lines_are_rejected(images, line, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(augment.parse(line), KEY, images)


@pytest.mark.parametrize(
    "whole",
    [
        *("flip(1)", "vertical_flip(1)", "equalize(1)", "autocontrast(1)", "invert(1)"),
        *("posterize(2, 1)", "solarize(64, 1)", "random_erasing(1)", "channel_shift(60)"),
        *("brightness(0, 2)", "contrast(0, 2)", "saturation(0, 2)", "sharpness(0, 2)"),
        *("rotation(30)", "affine(30, 1)", "shift(1, 0)", "random_erasing(1, (0, 1), (1, 2), 3)"),
    ],
)
def test_whole_numbers_equal_floats(whole):
    images = photographs(4, 8)
    floats = re.sub(r"(?<=[(, ])(?<!posterize\()(\d+)", r"\1.0", whole)
    assert floats != whole
    np.testing.assert_array_equal(run(whole, images), run(floats, images))


def random_lines(rng, count):
    """Yields random lines of names, numbers and punctuation, many of which are almost valid."""
    values = ["0", "1", "2", "0.5", "-1", "1e999", "300", "None", "True", "'a'", "()", "(0, 1)"]
    values += ["(1, 0)", "[]", "'edge'", "'nearest'", "{}", "9" * 5000, "x", "1j", "b''", "..."]
    pieces = ["|", "(", ")", ",", "=", " ", "'", "\0", "\n", "é", "probability=", "*", "#", "crop"]
    names = [*augment.OPS, *augment.MIXES]

    def one():
        args = list(rng.choice(values, rng.integers(0, 4)))
        if args and rng.random() < 0.2:
            keyword = rng.choice(["probability", "fill", "mode", "value", "size", "scale", "key"])
            args[-1] = f"{keyword}={args[-1]}"
        call = f"{rng.choice(names)}({', '.join(args)})"
        return call if rng.random() < 0.9 else "".join(rng.choice(pieces, rng.integers(1, 6)))

    for _ in range(count):
        yield "|".join(one() for _ in range(rng.integers(1, 3)))


def check_lines(rng, count):
    """Returns the number of random lines that are accepted; the others raise UserError."""
    accepted = 0
    for line in random_lines(rng, count):
        try:
            augment.check(line)
        except UserError as error:
            assert len(str(error)) < 900 and len(str(error).splitlines()) <= 3, line
        except Exception as error:
            raise AssertionError(f"{line[:300]!r} raises {error!r}") from error
        else:
            accepted += 1
    return accepted


def test_any_line_is_either_accepted_or_rejected():
    assert 5 < check_lines(np.random.default_rng(0), 120) < 60


def test_normalize_equals_the_formula(images):
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
    out = augment.normalize(images, mean, std)
    np.testing.assert_allclose(out, (images / 255.0 - mean) / std, rtol=1e-5, atol=1e-6)
    assert out.dtype == np.float32
