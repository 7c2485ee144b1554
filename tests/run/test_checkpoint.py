import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax import engine
from cifar_jax.run.checkpoint import open_checkpoints


def replicated(num_devices):
    return NamedSharding(engine.make_mesh(jax.devices()[:num_devices]), P())


def tree(value, num_devices=1):
    arrays = {"w": jnp.full((4, 3), value), "key": jax.random.key(7), "n": jnp.int32(value)}
    return jax.device_put(arrays, replicated(num_devices))


def test_what_is_saved_comes_back(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(5, tree(1.5), {"rows": [{"epoch": 1}]})
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 5
        state, meta = checkpoints.restore(5, tree(0.0), replicated(1))
    np.testing.assert_array_equal(state["w"], np.full((4, 3), 1.5))
    np.testing.assert_array_equal(jax.random.bits(state["key"]), jax.random.bits(tree(0)["key"]))
    assert meta == {"rows": [{"epoch": 1}]}


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (1, 8)])
def test_other_devices_restore_it(tmp_path, saved_on, restored_on):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(2.0, saved_on), {})
    with open_checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(1, tree(0.0), replicated(restored_on))
    assert len(state["w"].sharding.device_set) == restored_on
    np.testing.assert_array_equal(state["w"], np.full((4, 3), 2.0))


def test_the_latest_and_the_earliest_best_are_kept_even_across_openings(tmp_path):
    scores = [0.1, 0.9, 0.3, 0.9, 0.5, None]
    for step, score in enumerate(scores):
        with open_checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, tree(step), {}, score)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 5
        state, _ = checkpoints.restore(1, tree(0.0), replicated(1))
    assert int(state["n"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["1", "5"]


def test_a_step_that_is_there_is_left_as_it_is(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, tree(1.0), {})
        checkpoints.save(3, tree(2.0), {})
    with open_checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(3, tree(0.0), replicated(1))
    assert int(state["n"]) == 1


def test_saving_copies_before_the_buffers_are_given_up(tmp_path):
    """Training goes on in the saved buffers while the files are written."""
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    big = jnp.full((1000, 1000), 3.0)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": big}, {})
        overwrite(big).block_until_ready()
    with open_checkpoints(tmp_path) as checkpoints:
        target = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
        state, _ = checkpoints.restore(1, target, replicated(1))
    np.testing.assert_array_equal(state["w"], np.full((1000, 1000), 3.0))
