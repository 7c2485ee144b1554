"""Tests of cutout, random_erasing, mixup and cutmix."""

import jax
import numpy as np
import pytest
from augmenting import photographs, run
from lowering import program

from cifar_jax import augment
from cifar_jax.augment import erase
from cifar_jax.errors import UserError

WHITE = np.full((2000, 16, 16, 3), 255, np.uint8)


def erased_boxes(is_erased):
    """Returns (top, left, height, width) of the erased box in each image that has one."""
    boxes = []
    for mask in is_erased[is_erased.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == height * width  # a single filled rectangle
        boxes.append((rows[0], columns[0], height, width))
    return np.array(boxes)


def test_cutout_erases_a_square_with_a_uniform_center():
    out = run("cutout(6)", WHITE)
    is_erased = (out == np.array(erase.MEAN)).all(-1)
    assert (is_erased | (out == 255).all(-1)).all() and is_erased.any((1, 2)).all()
    top, left, height, width = erased_boxes(is_erased).T
    assert height.max() == width.max() == 6 and height.min() == width.min() == 3
    # The center follows from the first erased row or, if the top is cut off, from the height.
    centers = np.where(top > 0, top + 3, height - 3)
    counts = np.bincount(centers, minlength=16)
    assert counts.min() > 70 and counts.max() < 180  # 125 expected, 5 standard deviations
    assert np.abs(np.corrcoef(top, left)[0, 1]) < 0.12


def test_cutout_accepts_a_count_and_a_fill_value():
    out = run("cutout(5, 3, 10.5)", WHITE[:200].astype(np.float32))
    assert set(np.unique(out)) == {10.5, 255.0}
    area = (out == 10.5).all(-1).sum((1, 2))
    assert area.max() > 50 and area.max() <= 75 and area.min() >= 4


def test_random_erasing_draws_areas_and_ratios_as_torchvision_does():
    images = np.full((2000, 32, 32, 1), 255, np.uint8)
    out = run("random_erasing(0.7, (0.05, 0.3), (0.4, 2.5), 0)", images)
    is_erased = out[..., 0] == 0
    assert 1300 < is_erased.any((1, 2)).sum() < 1500  # 1400 expected, 5 standard deviations
    top, left, height, width = erased_boxes(is_erased).T
    # The sides are sqrt(area * ratio) and sqrt(area / ratio), rounded.
    assert ((height + 0.5) * (width + 0.5) >= 0.05 * 1024).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.3 * 1024).all()
    assert ((height + 0.5) / (width - 0.5) >= 0.4).all()
    assert ((height - 0.5) / (width + 0.5) <= 2.5).all()
    area = height * width / 1024
    assert abs(area.mean() - 0.175) < 0.015 and area.max() > 0.28 and area.min() < 0.06
    assert abs(np.log(height / width).mean()) < 0.06
    assert (top + height <= 32).all() and (left + width <= 32).all()
    assert top.min() == 0 and (top + height).max() == 32


def test_random_erasing_changes_nothing_if_no_box_fits():
    none = erase._draw_boxes(jax.random.key(0), 5, 16, 16, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(none, np.zeros((2, 5)))


def test_random_erasing_can_fill_with_noise():
    out = run("random_erasing(1.0, (0.25, 0.25), (1.0, 1.0), 'random')", WHITE[:20])
    noise = out[(out != 255).any(-1)]
    assert noise.shape[0] == 20 * 64 and abs(noise.mean() - 127.5) < 5
    assert len(np.unique(noise)) > 250


def mixed(line, images):
    return [np.asarray(x) for x in jax.jit(augment.parse_mix(line))(jax.random.key(0), images)]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_interpolates_with_weights_from_a_beta_distribution(alpha):
    stats = pytest.importorskip("scipy.stats")
    images = photographs(1000, 4)
    out, partner, lam = mixed(f"mixup({alpha})", images)
    np.testing.assert_array_equal(partner, np.arange(1000)[::-1])
    weight = lam[:, None, None, None]
    np.testing.assert_allclose(out, weight * images + (1 - weight) * images[partner], atol=1e-3)
    assert out.dtype == lam.dtype == np.float32 and partner.dtype == np.int32
    assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.8, 3.0, 100.0])
def test_weights_follow_the_beta_distribution_without_a_loop(alpha):
    stats = pytest.importorskip("scipy.stats")
    mix, images = augment.parse_mix(f"mixup({alpha})"), np.zeros((100_000, 1, 1, 1), np.uint8)
    lam = np.sort(jax.jit(mix)(jax.random.key(0), images).lam)
    # Float32 rounds many of the largest draws to 1.
    points = np.linspace(0.001, 0.999, 999)
    below = np.searchsorted(lam, points, side="right") / len(lam)
    assert np.abs(below - stats.beta(alpha, alpha).cdf(points)).max() < 0.005
    # On a GPU, a loop of unknown length either waits for the host or becomes a separate graph.
    assert "while" not in program(mix, jax.random.key(0), images, platform="cuda")


def test_cutmix_replaces_a_box_and_lam_is_the_remaining_fraction():
    """Every image has its own color, so each output pixel identifies the image that it is from.

    With alpha 1, the fraction of pixels outside the unclipped box is uniform; the side of the box
    is sqrt(1 - fraction).
    """
    colors = np.arange(1, 501, dtype=np.float32)[:, None, None, None]
    images = np.broadcast_to(colors, (500, 16, 16, 3))
    out, partner, lam = mixed("cutmix(1.0)", images)
    np.testing.assert_array_equal(partner, np.arange(500)[::-1])
    is_original = (out == images).all(-1)
    assert (is_original | (out == images[partner]).all(-1)).all()
    np.testing.assert_allclose(lam, is_original.mean((1, 2)), atol=1e-6)
    lam_key, center_key = jax.random.split(jax.random.key(0))
    drawn = np.asarray(jax.random.uniform(lam_key, (500,)))
    center = np.asarray(jax.random.randint(center_key, (500, 2), 0, 16))
    for i in range(500):
        half = int(16 * np.sqrt(1 - drawn[i])) // 2
        low, high = np.clip(center[i] - half, 0, 16), np.clip(center[i] + half, 0, 16)
        box = np.zeros((16, 16), bool)
        box[low[0] : high[0], low[1] : high[1]] = True
        np.testing.assert_array_equal(~is_original[i], box)


def test_cutmix_preserves_the_dtype():
    out = jax.eval_shape(augment.parse_mix("cutmix"), jax.random.key(0), WHITE[:4])
    assert out.images.dtype == np.uint8 and out.lam.shape == (4,)


def test_an_empty_mix_is_none_and_invalid_ones_are_rejected():
    assert augment.parse_mix("") is None
    for line, message in [
        ("mixap(0.2)", "unknown augmentation 'mixap'; did you mean 'mixup'"),
        ("mixup(0.2", "neither a name nor a call"),
        ("mixup(beta=1)", "unexpected keyword argument 'beta'"),
        ("mixup|cutmix", "neither a name nor a call"),
        ("cutmix(0)", "cutmix needs a number from 0.01 to 100, got 0"),
    ]:
        with pytest.raises(UserError, match=message):
            jax.eval_shape(augment.parse_mix(line), jax.random.key(0), WHITE[:2])
