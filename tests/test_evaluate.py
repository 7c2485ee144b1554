import jax
import numpy as np
import pytest
import tiny

from cifar_jax import engine, evaluate, metrics
from cifar_jax.step import TrainState


def eval_step(params, batch_stats, batch):
    """Returns logits that identify the image that they belong to."""
    logits = batch.images.astype(float).mean((1, 2)) * params["scale"]
    return logits, metrics.measure(logits, batch.labels, logits[:, 0], batch.weights)


@pytest.mark.parametrize(("batch_size", "num_devices"), [(16, 1), (40, 1), (100, 1), (10, 8)])
def test_every_image_counts_once_and_in_order(batch_size, num_devices):
    split = tiny.dataset().test  # 40 images
    mesh = engine.make_mesh(jax.devices()[:num_devices])
    run = evaluate.make_evaluate(
        eval_step, split.images, split.labels, batch_size=batch_size, mesh=mesh
    )
    scale = jax.device_put(np.float32(0.5), engine.replicated(mesh))
    state = TrainState(0, {"scale": scale}, {}, (), None, None)
    found, logits = run(state)
    wanted = split.images.astype(np.float32).mean((1, 2)) * 0.5
    np.testing.assert_allclose(logits, wanted, rtol=1e-5)
    assert metrics.fetch(found)["loss"] == pytest.approx(wanted[:, 0].mean(), rel=1e-5)
    assert found.sums[3] == 40


def test_a_lowered_program_evaluates_the_split():
    split, mesh = tiny.dataset().test, engine.make_mesh(jax.devices()[:1])
    state = TrainState(0, {"scale": np.float32(0.5)}, {}, (), None, None)
    program = evaluate.lower(eval_step, state, num_examples=40, batch_size=16, mesh=mesh).compile()
    order = np.arange(48, dtype=np.int32).reshape(3, 16) % 40
    rows = order, np.float32(np.arange(48).reshape(3, 16) < 40)
    arguments = jax.device_put(
        (*state.evaluated, (split.images, split.labels), rows), engine.replicated(mesh)
    )
    found, logits = program(*arguments)
    wanted = split.images.astype(np.float32).mean((1, 2)) * 0.5
    np.testing.assert_allclose(logits, wanted, rtol=1e-5)
    assert found.sums[3] == 40
