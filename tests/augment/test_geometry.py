"""Compares flips, crops and translations with NumPy, and affine transforms with SciPy and Keras."""

import functools
import itertools

import jax
import numpy as np
import pytest
import tiny
from augmenting import op_key, photographs, run
from test_train import params_of, train_until

from cifar_jax import augment
from cifar_jax.augment import geometry, warp

RANGES = dict(rotation=40.0, width_shift=0.3, height_shift=0.2, shear=20.0, zoom=0.3)
IMAGES = photographs(12)
KEY = jax.random.key(0)


@functools.cache
def affine(interpolation="bilinear", fill="nearest"):
    """Returns IMAGES transformed by `affine` with RANGES."""
    options = dict(interpolation=interpolation, fill=fill, value=70.0)
    return np.asarray(jax.jit(functools.partial(augment.affine, **RANGES, **options))(KEY, IMAGES))


@functools.cache
def drawn(count=12):
    """Returns what `affine` draws for `count` images."""
    draw = functools.partial(warp.draw, shape=(count, 16, 16, 3), **RANGES)
    return warp.Draw(*map(np.asarray, jax.jit(draw)(KEY)))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(("name", "axis"), [("flip", 2), ("vertical_flip", 1)])
def test_flips_mirror_about_half_of_the_images(images, name, axis):
    out = run(name, images)
    flipped = (out == np.flip(images, axis)).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (flipped ^ kept).all()
    assert 240 < flipped.sum() < 360  # 5 standard deviations


def test_alternating_flip_shows_both_orientations_in_two_epochs(images):
    index = np.random.default_rng(1).permutation(50_000)[:600].astype(np.int32)

    def flipped(epoch, seed=0):
        out = run("alternating_flip", images, seed, index=index, epoch=np.int32(epoch))
        is_flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
        assert (is_flipped ^ (out == images).all((1, 2, 3))).all()
        return is_flipped

    first = flipped(0)
    assert 240 < first.sum() < 360
    np.testing.assert_array_equal(flipped(1), ~first)
    np.testing.assert_array_equal(flipped(2, seed=5), first)


@pytest.mark.usefixtures("default_signals")
def test_a_run_mirrors_every_image_in_every_other_epoch(tmp_path, monkeypatch):
    """Compares the batches of 4 epochs with NumPy. The run is resumed within the second one."""
    batches = []

    def recording(key, images, *, index, epoch):
        images = geometry.alternating_flip(key, images, index=index, epoch=epoch)
        record = lambda *arrays: batches.append(jax.device_get(arrays))  # noqa: E731
        jax.debug.callback(record, index, images, ordered=True)
        return images

    monkeypatch.setitem(augment.OPS, "alternating_flip", recording)
    config = tiny.make_config(augment__ops="alternating_flip", batch_size=25, num_epochs=4)
    train_until(6, config, tmp_path)
    jax.effects_barrier()
    del batches[params_of(tmp_path)[0] :]  # steps after the checkpoint
    assert 4 < len(batches) < 8
    tiny.train(config, tmp_path)
    jax.effects_barrier()

    originals = tiny.dataset().train.images
    is_mirrored = np.empty((4, 100), bool)
    for epoch in range(4):
        seen = []
        for indices, images in batches[4 * epoch : 4 * epoch + 4]:
            for i, image in zip(indices, images, strict=True):
                is_kept = np.array_equal(image, originals[i])
                is_mirrored[epoch, i] = np.array_equal(image, np.fliplr(originals[i]))
                assert is_kept != is_mirrored[epoch, i]
                seen.append(i)
        assert sorted(seen) == list(range(100))
    assert len(batches) == 16
    assert 30 < is_mirrored[0].sum() < 70  # 4 standard deviations
    for before, after in itertools.pairwise(is_mirrored):
        np.testing.assert_array_equal(after, ~before)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_equals_numpy_and_takes_every_position(images, mode):
    out = run(f"crop(1, {mode!r})", images)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode)
    positions = np.stack(
        [
            (out == padded[:, i : i + 8, j : j + 8]).all((1, 2, 3))
            for i in range(3)
            for j in range(3)
        ]
    )
    assert (positions.sum(0) == 1).all()
    counts = positions.sum(1)  # 66.7 expected at each position
    assert counts.min() > 30 and counts.max() < 110
    assert out.dtype == np.uint8


def test_translate_fills_with_black(images):
    out = run("translate(2)", images)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    positions = [
        (out == padded[:, i : i + 8, j : j + 8]).all((1, 2, 3)) for i in range(5) for j in range(5)
    ]
    assert (np.sum(positions, 0) == 1).all() and np.any(positions, 1).all()


def keras_matrix(rotation, tx, ty, shear, zoom_x, zoom_y):
    """Returns Keras's matrix for (row, column), computed as in Keras, in double precision."""
    a, s = np.deg2rad(rotation), np.deg2rad(shear)
    matrix = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    matrix = matrix @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    matrix = matrix @ np.array([[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]])
    matrix = matrix @ np.diag([zoom_x, zoom_y, 1])
    return matrix[[1, 0, 2]][:, [1, 0, 2]]


def drawn_matrices():
    for down, right, angle, shear, zoom_rows, zoom_columns in np.asarray(drawn(), float).T:
        yield keras_matrix(angle, right, down, shear, zoom_columns, zoom_rows)


def near_a_jump(matrix, size, interpolation, fill):
    """Returns where rounding of the source position may change the pixel: [H, W] bool."""
    middle = (size - 1) / 2
    grid = np.stack(np.mgrid[:size, :size]) - middle
    positions = np.einsum("ij,jhw->ihw", matrix[:2, :2], grid) + matrix[:2, 2, None, None] + middle
    jumps = []
    if interpolation == "nearest":
        jumps.append(np.abs((positions + 0.5) - np.round(positions + 0.5)))
    if fill == "constant":
        jumps += [np.abs(positions), np.abs(positions - (size - 1))]
    if fill == "wrap":
        away = np.abs(positions / (size - 1) - np.round(positions / (size - 1))) * (size - 1)
        jumps += [away, np.abs(away - 0.5)] if interpolation == "nearest" else [away]
        if interpolation == "nearest":
            folded = np.mod(positions, size - 1)
            jumps.append(np.abs(folded + 0.5 - np.round(folded + 0.5)))
    return np.any(np.stack(jumps) < 1e-4, axis=(0, 1)) if jumps else np.zeros((size, size), bool)


@pytest.mark.parametrize("interpolation", warp.INTERPOLATIONS)
@pytest.mark.parametrize("fill", warp.FILLS)
def test_affine_equals_scipy_for_the_drawn_parameters(interpolation, fill):
    ndimage = pytest.importorskip("scipy.ndimage")
    size, order = 16, warp.INTERPOLATIONS[::-1].index(interpolation)
    out = affine(interpolation, fill)
    compared = 0
    for image, ours, matrix in zip(IMAGES, out, drawn_matrices(), strict=True):
        center = np.array([(size - 1) / 2] * 2)
        linear, offset = matrix[:2, :2], matrix[:2, 2]
        offset = offset + center - linear @ center
        expected = np.stack(
            [
                ndimage.affine_transform(
                    image[..., c].astype(float), linear, offset, order=order, mode=fill, cval=70
                )
                for c in range(3)
            ],
            axis=-1,
        )
        smooth = ~near_a_jump(matrix, size, interpolation, fill)
        np.testing.assert_allclose(ours[smooth], expected[smooth], atol=0.02)
        compared += smooth.mean() / 12
    assert compared > 0.99
    assert out.dtype == np.float32


def test_affine_equals_keras():
    pytest.importorskip("torch")
    pytest.importorskip("lazy_keras")
    legacy = pytest.importorskip("keras.src.legacy.preprocessing.image")
    for image, ours, parameters in zip(IMAGES, affine(), np.asarray(drawn(), float).T, strict=True):
        down, right, rotation, shear, zoom_rows, zoom_columns = parameters
        expected = legacy.apply_affine_transform(
            image.astype(np.float32), theta=rotation, tx=right, ty=down, shear=shear,
            zx=zoom_columns, zy=zoom_rows, row_axis=0, col_axis=1, channel_axis=2,
        )  # fmt: skip
        np.testing.assert_allclose(ours, expected, atol=0.02)


def test_affine_draws_uniformly_and_independently():
    radius = np.array([0.2 * 16, 0.3 * 16, 40, 20, 0.3, 0.3])
    middle = np.array([0, 0, 0, 0, 1, 1])
    scaled = (np.asarray(drawn(4000), float) - middle[:, None]) / radius[:, None]
    assert np.abs(scaled).max() <= 1 + 1e-6
    counts = np.stack([np.histogram(x, 10, (-1, 1))[0] for x in scaled])
    assert counts.min() > 300 and counts.max() < 500  # 400 expected, 5 standard deviations
    correlations = np.corrcoef(scaled)
    assert np.abs(correlations - np.eye(6)).max() < 0.08


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("shift(0.25, 0.5)", dict(width_shift=0.25, height_shift=0.5)),
        ("rotation(30, fill='wrap')", dict(rotation=30, fill="wrap")),
        ("shear(12, 'nearest')", dict(shear=12, interpolation="nearest")),
        ("zoom(0.4, fill='constant', value=9)", dict(zoom=0.4, fill="constant", value=9)),
    ],
)
def test_single_transforms_trace_to_the_program_of_affine(line, same):

    def expected(key, images):
        return augment.affine(jax.random.fold_in(key, 0), images, **same)

    programs = [jax.make_jaxpr(f)(KEY, IMAGES) for f in (augment.parse(line), expected)]
    assert str(programs[0]) == str(programs[1])


def test_shift_moves_rows_by_height_and_columns_by_width():
    images = np.zeros((5, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200
    rows = run("shift(0.0, 0.3)", images)[..., 0]
    np.testing.assert_allclose(rows[:, :, 4].sum(1), 200, rtol=1e-4)
    columns = run("shift(0.3, 0.0)", images)[..., 0]
    np.testing.assert_allclose(columns[:, 4].sum(1), 200, rtol=1e-4)
    for out in (rows, columns):
        np.testing.assert_allclose(out.sum((1, 2)), 200, rtol=1e-4)
        assert (out[:, 4, 4] < 190).any()


@pytest.mark.parametrize("fill", warp.FILLS)
def test_affine_with_default_ranges_changes_nothing(fill):
    unchanged = jax.jit(functools.partial(warp.affine, fill=fill))(jax.random.key(0), IMAGES)
    np.testing.assert_array_equal(unchanged, IMAGES)


def test_shift_accepts_images_that_are_not_square():
    ndimage = pytest.importorskip("scipy.ndimage")
    images = photographs(3)[:, :10]
    out = run("shift(0.2, 0.3)", images)
    draw = functools.partial(warp.draw, shape=images.shape, width_shift=0.2, height_shift=0.3)
    drawn = jax.jit(draw)(op_key())
    for image, ours, down, right in zip(images, out, drawn.down, drawn.right, strict=True):
        expected = ndimage.shift(image.astype(float), (-down, -right, 0), order=1, mode="nearest")
        np.testing.assert_allclose(ours, expected, atol=0.02)
