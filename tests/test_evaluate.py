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
