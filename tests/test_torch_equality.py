"""Training equals PyTorch's: the same weights, batches and optimiser, by the engine that runs ours.

Differences are relative to the greatest entry of each tensor: 1e-4, where float32 leaves 1e-6 to
1e-5. Dropout is off, for its masks are drawn otherwise.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax import augment, engine, models, optim, step
from cifar_jax.metrics import fetch

torch = pytest.importorskip("torch")

from benchmarks import torch_models  # noqa: E402

RTOL = 1e-4
NUM_CLASSES = 10
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.2)


class Ours(NamedTuple):
    """The suite's side: an engine on one device, and the logits of a state in evaluation."""

    engine: engine.Engine
    logits: Any  # state -> [N, NUM_CLASSES]


def make_data(num_examples):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_examples, 32, 32, 3), np.uint8)
    return images, rng.integers(0, NUM_CLASSES, num_examples).astype(np.int32)


def make_ours(name, images, labels, *, batch_size, optimizer, label_smoothing=0.0, **options):
    def build(rngs):
        return models.create(name, NUM_CLASSES, rngs, **options)

    networks = step.split_networks(build)
    preprocess = partial(augment.normalize, mean=MEAN, std=STD)

    def make_train_step(axis_name):
        return step.make_train_step(
            networks.train,
            optimizer,
            augment=augment.parse(""),
            preprocess=preprocess,
            label_smoothing=label_smoothing,
            axis_name=axis_name,
        )

    weights, positions = jnp.ones(len(labels)), jnp.arange(len(labels))
    batch = step.Batch(jnp.asarray(images), jnp.asarray(labels), weights, positions)
    eval_step = jax.jit(step.make_eval_step(networks.eval, preprocess))
    return Ours(
        engine.create(
            make_train_step,
            partial(step.init, build, optimizer, 0),
            images,
            labels,
            batch_size=batch_size,
            mesh=engine.make_mesh(jax.local_devices()[:1]),
        ),
        lambda state: eval_step(state.params, state.batch_stats, batch)[0],
    )


def make_twin(name, state, **options):
    module = torch_models.MODELS[name](NUM_CLASSES, **options)
    torch_models.transplant(state.params, state.batch_stats, module)
    return module


def preprocess_in_torch(images):
    x = torch.tensor(images).float() / 255
    return ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def logits_in_torch(module, images):
    with torch.no_grad():
        return module.eval()(preprocess_in_torch(images))


def train_in_torch(module, optimizer, images, labels, batches, label_smoothing=0.0):
    """Takes a step for each of `batches`, arrays of indices; returns the mean loss."""
    x, y = preprocess_in_torch(images), torch.tensor(labels).long()
    module.train()
    total = 0.0
    for indices in map(torch.tensor, batches):
        loss = torch.nn.functional.cross_entropy(
            module(x[indices]), y[indices], label_smoothing=label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(indices)
    return total / sum(map(len, batches))


def tensors(state, module):
    """Returns our parameters and statistics as the module's: {name: tensor}."""
    return torch_models.to_state_dict(state.params, module) | torch_models.to_state_dict(
        state.batch_stats, module
    )


def assert_close(ours, theirs, what, rtol=RTOL):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, what
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{what}: {difference:.1e}")
    assert difference < rtol, f"{what} differs by {difference:.1e} of its greatest entry"


OPTIONS = {
    "cnn2": dict(filters=(4, 6), dense_units=9, dropout=(0.0, 0.0, 0.0)),
    "cnn3": dict(dropout=(0.0, 0.0, 0.0)),
    "cnn4": dict(filters=(4, 5, 6, 7), dense_units=9, dropout=(0.0, 0.0, 0.0)),
    "resnet18": dict(width=4),
    "resnet34": dict(width=4),
}


@pytest.mark.parametrize("name", torch_models.MODELS)
def test_twin_gives_the_same_logits(name):
    images, _ = make_data(2)

    def build(rngs):
        return models.create(name, NUM_CLASSES, rngs, **OPTIONS[name])

    networks = step.split_networks(build)
    state = jax.jit(partial(step.init, build, optim.create("sgd", 0.1)), static_argnums=0)(0)
