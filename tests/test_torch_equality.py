"""Training equals PyTorch's: from the same weights and batches, the same of everything else.

Updates are compared in float64. In float32 a ReLU whose input lies within rounding of zero may open
on one side alone, which changes gradients of ResNet-18 by up to 15% of their greatest entry; it
does so between PyTorch's own float32 and float64, too. What remains is the step's cast of logits to
float32, some 1e-6. Dropout is off: its masks are drawn otherwise.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax import augment, engine, models, optim, step
from cifar_jax.metrics import fetch

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

from benchmarks import torch_models  # noqa: E402

NUM_CLASSES = 10
SGD = (optim.create("sgd", 0.1), partial(torch.optim.SGD, lr=0.1))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield "float64"


def make_data(num_examples):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_examples, 32, 32, 3), np.uint8)
    return images, rng.integers(0, NUM_CLASSES, num_examples).astype(np.int32)


def assert_close(ours, theirs, what):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, what
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{what}: {difference:.1e}")  # seen with pytest -s
    assert difference <= 1e-4, f"{what} differs by {difference:.1e} of its greatest entry"


class Pair:
    """One network with its optimiser, twice from the same weights: the suite's and PyTorch's."""

    def __init__(self, name, optimizers=SGD, *, label_smoothing=0.0, dtype="float32", **options):
        optimizer, make_torch_optimizer = optimizers

        def build(rngs):
            return models.create(name, NUM_CLASSES, rngs, dtype=jnp.dtype(dtype), **options)

        def init():
            state = step.init(build, optimizer, 0)
            return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, state)

        networks = step.split_networks(build)

        def preprocess(images):  # not augment.normalize: it computes in float32
            return images.astype(dtype) / 127.5 - 1

        self.init = init
        self.state = jax.jit(init)()
        self.train_step = step.make_train_step(
            networks.train,
            optimizer,
            augment=augment.parse(""),
            preprocess=preprocess,
            label_smoothing=label_smoothing,
        )
        self._jitted_step = jax.jit(self.train_step)
        self._eval_step = jax.jit(step.make_eval_step(networks.eval, preprocess))

        self._dtype, self._label_smoothing = getattr(torch, dtype), label_smoothing
        self._module = torch_models.MODELS[name](NUM_CLASSES, **options).to(self._dtype)
        self._optimizer = make_torch_optimizer(self._module.parameters())
        self.transplant()
        # {BatchNorm: number of values of each channel that its statistics are taken over}
        self._batch_norms = {}
        for path, layer in self._module.named_modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_hook(partial(self._note_values, path))

    def _note_values(self, path, layer, args, output):
        self._batch_norms[path] = output[:, 0].numel()

    def transplant(self):
        torch_models.transplant(self.state.params, self.state.batch_stats, self._module)

    def torch_images(self, images):
        return torch.tensor(images).permute(0, 3, 1, 2).to(self._dtype) / 127.5 - 1

    def torch_step(self, images, labels):
        """Takes a step in PyTorch and returns its loss."""
        logits = self._module.train()(self.torch_images(images))
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels).long(), label_smoothing=self._label_smoothing
        )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def assert_same_logits(self, images):
        batch = make_batch(images, np.zeros(len(images), np.int32))
        ours, _ = self._eval_step(self.state.params, self.state.batch_stats, batch)
        with torch.no_grad():
            theirs = self._module.eval()(self.torch_images(images))
        assert_close(ours, theirs, "logits")

    def assert_same_step(self, images, labels, num_counting=None):
        """Takes a step on both sides, PyTorch's on the counting examples alone."""
        old_ours, old_theirs = self._ours(), self._theirs()
        batch = make_batch(images, labels, num_counting)
        self.state, metrics = self._jitted_step(self.state, batch)
        loss = self.torch_step(images[:num_counting], labels[:num_counting])
        assert_close(fetch(metrics)["loss"], loss, "loss")
        ours, theirs = self._ours(), self._theirs()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype == self._dtype
            change, expected = ours[name] - old_ours[name], theirs[name] - old_theirs[name]
            if name.endswith("running_var"):
                # Minus 0.1 of the old one, plus 0.1 of the batch's; PyTorch's is the unbiased one.
                n = self._batch_norms[name.removesuffix(".running_var")]
                change += 0.1 * old_ours[name]
                expected = (expected + 0.1 * old_theirs[name]) * (n - 1) / n
            assert_close(change, expected, name)

    def _ours(self):
        trees = (self.state.params, self.state.batch_stats)
        params, batch_stats = (torch_models.to_state_dict(tree, self._module) for tree in trees)
        return params | batch_stats

    def _theirs(self):
        return {name: tensor.clone() for name, tensor in self._module.state_dict().items()}


def make_batch(images, labels, num_counting=None):
    positions = jnp.arange(len(labels), dtype=jnp.int32)
    weights = (positions < (num_counting or len(labels))).astype(jnp.float32)
    return step.Batch(jnp.asarray(images), jnp.asarray(labels), weights, positions)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn2", dict(filters=(4, 6), dense_units=9)),
        ("cnn3", {}),
        ("cnn4", dict(filters=(4, 5, 6, 7), dense_units=9)),
        ("resnet18", dict(width=4)),
        ("resnet34", dict(width=4)),
    ],
)
def test_logits(name, options):
    images, _ = make_data(3)
    Pair(name, **options).assert_same_logits(images)


def test_adam_on_cnn3(float64):
    # With eps far below the gradients, the first update would be their sign, and that of a
    # gradient near zero is noise.
    pair = Pair(
        "cnn3",
        (optim.create("adam", 1e-3, eps=1e-4), partial(torch.optim.Adam, lr=1e-3, eps=1e-4)),
        dtype=float64,
        dropout=(0.0, 0.0, 0.0),
    )
    images, labels = make_data(8)
    pair.assert_same_logits(images)
    for _ in range(2):
        pair.assert_same_step(images, labels)


def test_sgd_with_nesterov_decay_and_smoothing_on_resnet18(float64):
    pair = Pair(
        "resnet18",
        (
            optim.create("sgd", 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
            partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        ),
        label_smoothing=0.1,
        dtype=float64,
    )
    images, labels = make_data(8)
    for part in (slice(0, 4), slice(4, 8)):
        pair.assert_same_step(images[part], labels[part])
    pair.transplant()  # for the logits: the running variances differ by design
    pair.assert_same_logits(images)


def test_partial_batch_is_a_smaller_batch(float64):
    pair = Pair("cnn3", dtype=float64, dropout=(0.0, 0.0, 0.0))
    images, labels = make_data(8)
    pair.assert_same_step(images, labels, num_counting=5)


def test_engine_takes_the_loss_where_pytorch_does():
    """As training runs: float32, looped on the device, a partial batch at each epoch's end."""
    options = dict(eps=1e-7, weight_decay=1e-3)
    pair = Pair(
        "cnn3",
        (optim.create("adam", 1e-3, **options), partial(torch.optim.Adam, lr=1e-3, **options)),
        dropout=(0.0, 0.0, 0.0),
    )
    images, labels = make_data(11)
    runner = engine.create(
        lambda axis_name: pair.train_step,
        pair.init,
        images,
        labels,
        batch_size=8,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
    )
    state = runner.init()
    for epoch in range(3):
        order = runner.order(state, epoch)
        state, metrics = runner.run(state, runner.no_metrics(), order, 2)
        first, last = np.array(order)
        last = last[:3]
        theirs = 8 * pair.torch_step(images[first], labels[first])
        theirs += 3 * pair.torch_step(images[last], labels[last])
        assert_close(fetch(metrics)["loss"], theirs / 11, f"loss of epoch {epoch}")
