import jax
import numpy as np

from cifar_jax import engine
from cifar_jax.agreement import Agreement, View


def test_every_field_is_the_maximum_over_the_devices():
    agreement = Agreement(engine.make_mesh(jax.devices()[:1]))
    views = np.float32([View(0, 1.5, 0.25), View(15, 0.5, 0.125)])
    np.testing.assert_array_equal(agreement._max(views), View(15, 1.5, 0.25))


def test_views_are_fetched_in_the_order_in_which_they_were_proposed():
    agreement = Agreement(engine.make_mesh())
    views = View(0, 1.5, 0.25), View(15, 2.5, 0.5)
    for view in views:
        agreement.propose(view)
    assert agreement.view == View()
    for view in views:
        assert agreement.fetch() == view == agreement.view
