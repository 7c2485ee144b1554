import jax
import numpy as np
import pytest

from cifar_jax import augment
from cifar_jax.errors import UserError


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)


def test_flip_mirrors_about_half(images):
    out = np.asarray(augment.flip(keys(600), images))
    flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (flipped ^ kept).all()
    assert 240 < flipped.sum() < 360  # 5 standard deviations


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_is_one_of_numpys_at_every_place(images, mode):
    out = np.asarray(augment.crop(keys(600), images, 1, mode))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode)
    places = np.stack(
        [
            (out == padded[:, i : i + 8, j : j + 8]).all((1, 2, 3))
            for i in range(3)
            for j in range(3)
        ]
    )
    assert (places.sum(0) == 1).all()
    counts = places.sum(1)  # 66.7 expected at each
    assert counts.min() > 30 and counts.max() < 110
    assert out.dtype == np.uint8


def test_shift_equals_scipys_at_a_distance_of_its_own(images):
    ndimage = pytest.importorskip("scipy.ndimage")
    images = images[:20]
    out = np.asarray(augment.shift(keys(20), images, width=0.25, height=0.5))
    reach = np.array([0.5 * 8, 0.25 * 8])
    found = []
    for key, image, ours in zip(keys(20), images, out, strict=True):
        distance = np.asarray(jax.random.uniform(key, (2,), minval=-reach, maxval=reach))
        wanted = ndimage.shift(image.astype(float), (*-distance, 0), order=1, mode="nearest")
        np.testing.assert_allclose(ours, wanted, atol=1e-3)
        found.append(distance)
    assert out.dtype == np.float32
    assert (np.ptp(found, axis=0) > reach).all()


def test_shift_by_nothing_changes_nothing(images):
    np.testing.assert_array_equal(augment.shift(keys(600), images, 0.0, 0.0), images)


def test_an_image_does_not_depend_on_its_batch(images):
    run = augment.parse("flip|crop(2)|shift")
    whole = run(keys(600), images)
    np.testing.assert_array_equal(run(keys(600)[500:], images[500:]), whole[500:])


def test_parse_composes_in_order(images):
    run = augment.parse(" crop(2, mode='edge') | flip(probability=1.0) ")
    own = [jax.vmap(jax.random.fold_in, (0, None))(keys(600), i) for i in (0, 1)]
    wanted = augment.flip(own[1], augment.crop(own[0], images, 2, "edge"), 1.0)
    np.testing.assert_array_equal(run(keys(600), images), wanted)


def test_the_empty_line_changes_nothing(images):
    np.testing.assert_array_equal(augment.parse("")(keys(600), images), images)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flop", "unknown augmentation 'flop': did you mean 'flip'"),
        ("crop(4", "neither a name nor a call"),
        ("crop(padding=x)", "neither a name nor a call"),
        ("crop(4, fill=3)", "unexpected keyword argument 'fill'"),
        ("flip.x", "neither a name nor a call"),
        ("crop(-1)", "crop needs a whole number of pixels"),
        ("crop('a')", "crop needs a whole number of pixels"),
        ("crop(4, 'mirror')", "unknown crop mode 'mirror'"),
        ("flip(2)", "flip needs a probability from 0 to 1"),
        ("shift(3)", "shift needs shares of the image from 0 to 1, not 3 and 0.1"),
    ],
)
def test_wrong_lines_are_refused(images, line, message):
    with pytest.raises(UserError, match=message):
        augment.parse(line)(keys(600), images)


def test_normalize_equals_the_formula(images):
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
    out = augment.normalize(images, mean, std)
    np.testing.assert_allclose(out, (images / 255.0 - mean) / std, rtol=1e-5, atol=1e-6)
    assert out.dtype == np.float32
