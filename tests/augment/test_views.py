import jax
import numpy as np
import pytest
import tiny

from cifar_jax import experiment
from cifar_jax.augment.views import make_views

pytestmark = pytest.mark.usefixtures("library_convolutions")


def views_in_numpy(images):
    """Returns the two views that are not shifted and the four that are."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    up_left, down_right = padded[:, 0:32, 0:32], padded[:, 2:34, 2:34]
    plain = [images, images[:, :, ::-1]]
    shifted = [up_left, up_left[:, :, ::-1], down_right, down_right[:, :, ::-1]]
    return plain, shifted


@pytest.mark.parametrize("count", [1, 2, 6])
def test_views_are_those_of_numpy(count):
    images = tiny.dataset(5).train.images
    plain, shifted = views_in_numpy(images)
    wanted = {1: plain[:1], 2: plain, 6: [*plain, *shifted]}[count]
    views, weights = make_views(images, count)
    np.testing.assert_array_equal(views, np.concatenate(wanted))
    np.testing.assert_allclose(weights, {1: [1], 2: [0.5] * 2, 6: [0.25] * 2 + [0.125] * 4}[count])


@pytest.mark.usefixtures("untrained")
def test_evaluation_averages_the_logits_of_the_views():
    mesh = tiny.engine.make_mesh(jax.devices()[:1])
    images = tiny.dataset().test.images

    def logits(count, images):
        cfg = experiment.checked(tiny.make_config(augment__views=count))
        dataset = tiny.dataset()
        labels = np.resize(dataset.test.labels, len(images))
        dataset = dataset._replace(test=dataset.test._replace(images=images, labels=labels))
        exp = experiment.create(cfg, dataset, mesh=mesh)
        return np.asarray(exp.evaluate["test"](exp.engine.init())[1], np.float64)

    views = np.concatenate([view for views in views_in_numpy(images) for view in views])
    each = logits(1, views).reshape(6, len(images), -1)
    plain, shifted = each[:2], each[2:]
    both = np.mean(plain, axis=0)
    np.testing.assert_allclose(logits(2, images), both, atol=1e-5)
    wanted = 0.5 * both + 0.5 * np.mean(shifted, axis=0)
    np.testing.assert_allclose(logits(6, images), wanted, atol=1e-5)
    assert np.abs(wanted - plain[0]).max() > 1e-3
