from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from cifar_jax import augment, metrics, models, step


@pytest.mark.slow
def test_training_overfits_64_images():
    eng = tiny.make_engine(num_examples=64, ops="", optimizer=optax.adam(1e-3))
    _, epoch = tiny.run_steps(eng, eng.init(), 40 * eng.steps_per_epoch)
    assert metrics.fetch(epoch)["accuracy"] > 0.95


def test_golden_steps():
    """Compares five steps of cnn3, with augmentation and dropout, with recorded metrics.

    If a change is meant to affect what a step computes (initialization, order of random numbers, an
    operation's formula), update the numbers and describe the change in the commit. Otherwise a
    failure is a bug. A new version of jax may draw different numbers: first check with the old one.
    """
    eng = tiny.make_engine("cnn3")
    _, epoch = tiny.run_steps(eng, eng.init(), 5)
    assert metrics.fetch(epoch) == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = {"loss": 2.283456, "accuracy": 0.1375, "top5_accuracy": 0.5625}


def test_equal_seeds_give_equal_states_and_different_seeds_different_orders():
    eng = tiny.make_engine()
    first, second = eng.init(), eng.init()
    assert tiny.largest_difference(first.params, second.params) == 0
    keys = [jax.random.key(seed) for seed in (0, 1)]
    orders = [step.epoch_order(key, 0, 50, 10) for key in keys]
    assert not np.array_equal(*orders)


def test_each_step_and_each_pmap_replica_has_its_own_key():
    def state(at):
        return step.TrainState(jnp.int32(at), {}, {}, (), jax.random.key(0), jnp.float32(1))

    def replicas(at):
        keys = jax.vmap(lambda _: step.step_key(state(at), "axis"), axis_name="axis")(jnp.arange(8))
        return [step.step_key(state(at)), *keys]

    found = [jax.random.key_data(key) for at in (7, 8) for key in replicas(at)]
    assert len(np.unique(found, axis=0)) == 18
    np.testing.assert_array_equal(jax.random.key_data(step.step_key(state(7))), found[0])


def test_lr_scale_scales_the_update():
    eng = tiny.make_engine()
    start = jax.device_get(eng.init().params)
    moves = []
    for scale in (1.0, 0.25):
        state = eng.init().replace(lr_scale=jnp.float32(scale))
        state, _ = tiny.run_steps(eng, state, 1)
        moves.append(jax.tree.map(np.subtract, jax.device_get(state.params), start))
    quarter = jax.tree.map(lambda x: x / 4, moves[0])
    assert tiny.largest_difference(moves[1], quarter) < 1e-4


def test_mixing_pairs_mixes_their_losses():
    """With unchanged images, the loss is the weighted mean of the losses for both labels."""
    create = partial(models.create, "cnn_small", 10)
    optimizer = optax.sgd(0.1)
    state = jax.jit(partial(step.init, create, optimizer, 0))()
    images, labels = tiny.dataset(8).train
    batch = step.Batch(jnp.asarray(images), jnp.asarray(labels), jnp.ones(8), 8.0)

    def train_step(mix):
        return step.make_train_step(
            step.split_networks(create).train,
            optimizer,
            augment=augment.parse(""),
            preprocess=partial(augment.normalize, mean=0.5, std=0.25),
            mix=mix,
        )

    @jax.jit
    def take_mixed_step(batch, lam):
        mix = lambda key, images: (images, jnp.arange(8)[::-1], jnp.full(8, lam))  # noqa: E731
        return train_step(mix)(state, batch)

    take_plain_step = jax.jit(partial(train_step(None), state))

    def loss_and_params(labels, lam=None):
        given = batch._replace(labels=labels)
        after, new = take_plain_step(given) if lam is None else take_mixed_step(given, lam)
        return metrics.fetch(new)["loss"], after.params

    own, own_params = loss_and_params(batch.labels)
    others, others_params = loss_and_params(batch.labels[::-1])
    assert own != pytest.approx(others, rel=1e-4)
    for lam, loss, params in ((1.0, own, own_params), (0.0, others, others_params)):
        found, found_params = loss_and_params(batch.labels, lam)
        assert found == pytest.approx(loss, rel=1e-6)
        assert tiny.largest_difference(found_params, params) < 1e-5
    assert loss_and_params(batch.labels, 0.25)[0] == pytest.approx(0.25 * own + 0.75 * others)
