"""Compares training with PyTorch, starting from the same weights and batches.

Updates are compared in float64. In float32, a ReLU whose input is within rounding of zero may be
active on one side only, which changes gradients of ResNet-18 by up to 15% of their largest entry;
the same happens between float32 and float64 in PyTorch. The remaining difference is about 1e-6, due
to the step's cast of logits to float32. Dropout is off, because its masks are drawn differently.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from cifar_jax import augment, engine, models, optim, step
from cifar_jax.metrics import fetch
from cifar_jax.models.rngs import make_rngs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

from benchmarks import torch_models  # noqa: E402
from benchmarks.torch_models import weights  # noqa: E402

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
    # The gradient of a bias before BN is only rounding error, about 1e-14.
    difference = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-8)
    print(f"{what}: {difference:.1e}")  # shown by pytest -s
    assert difference <= 1e-4, f"{what} differs by {difference:.1e} of its largest entry"


def draw_state(init, optimizer):
    """Returns a random state without the zeros and ones that would hide a wrong eps or order.

    Nothing is compiled: compiling the initializers would take longer than the rest of the tests.
    """
    rng = np.random.default_rng(0)
    state = jax.eval_shape(init)
    params, stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
    for path, leaf in stats.items():
        # Small variances, so that eps matters.
        new = 10 ** rng.uniform(-4, 0, leaf.shape) if path[-1] == "var" else rng.normal(0, 0.3)
        stats[path] = jnp.full(leaf.shape, new, leaf.dtype)
    for path, leaf in params.items():
        if path[-1] == "kernel":
            new = rng.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        elif path[-1] == "scale":  # undoes the small variance; LayerNorm has none
            variance = stats.get((*path[:-1], "var"), 1.0)
            new = rng.uniform(0.5, 1.5, leaf.shape) * np.sqrt(variance)
        else:
            new = rng.normal(0, 0.3, leaf.shape)
        params[path] = jnp.asarray(new, leaf.dtype)
    params = unflatten_dict(params)
    return state.replace(
        step=jnp.int32(0),
        params=params,
        batch_stats=unflatten_dict(stats),
        opt_state=optimizer.init(params),
        key=jax.random.key(0),
        lr_scale=jnp.float32(1),
    )


class Pair:
    """A network and its optimizer in this suite and in PyTorch, with the same weights."""

    def __init__(
        self,
        name,
        optimizers=SGD,
        *,
        label_smoothing=0.0,
        sam_rho=0.0,
        clip_norm=0.0,
        dtype="float32",
        random=False,
        **options,
    ):
        optimizer, make_torch_optimizer = optimizers

        def build(rngs):
            return models.create(name, NUM_CLASSES, rngs, dtype=jnp.dtype(dtype), **options)

        def init():
            state = step.init(build, optimizer, 0)
            return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, state)

        networks = step.split_networks(build)

        def preprocess(images):  # augment.normalize would compute in float32
            return images.astype(dtype) / 127.5 - 1

        self.init = init
        self.state = draw_state(init, optimizer) if random else jax.jit(init)()
        self.train_step = step.make_train_step(
            networks.train,
            optimizer,
            augment=augment.parse(""),
            preprocess=preprocess,
            label_smoothing=label_smoothing,
            sam_rho=sam_rho,
        )
        self._jitted_step = jax.jit(self.train_step)
        self._eval_step = jax.jit(step.make_eval_step(networks.eval, preprocess))

        self._dtype, self._label_smoothing = getattr(torch, dtype), label_smoothing
        self._sam_rho, self._clip_norm = sam_rho, clip_norm
        self.clipped = []  # whether the gradient of each step was larger than clip_norm
        self._module = torch_models.create(name, NUM_CLASSES, **options).to(self._dtype)
        self._optimizer = make_torch_optimizer(self._module.parameters())
        self.transplant()
        # {BatchNorm: (momentum, number of values in the statistics of a channel)}
        self._batch_norms = {}
        for path, layer in self._module.named_modules():
            if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                layer.register_forward_hook(partial(self._note_values, path))

    def _note_values(self, path, layer, args, output):
        self._batch_norms[path] = layer.momentum, output[:, 0].numel()

    def transplant(self):
        weights.transplant(self.state.params, self.state.batch_stats, self._module)

    def torch_images(self, images):
        return torch.tensor(images).permute(0, 3, 1, 2).to(self._dtype) / 127.5 - 1

    def torch_step(self, images, labels):
        """Takes a step in PyTorch and returns the loss."""
        logits = self._module.train()(self.torch_images(images))
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels).long(), label_smoothing=self._label_smoothing
        )
        self._optimizer.zero_grad()
        loss.backward()
        if self._sam_rho:
            self._second_pass(images, labels)
        if self._clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._clip_norm)
            self.clipped.append(bool(norm > self._clip_norm))
        self._optimizer.step()
        return loss.item()

    def _second_pass(self, images, labels):
        """Replaces the gradients by those at the point to which SAM ascends."""
        buffers = {name: x.clone() for name, x in self._module.named_buffers()}
        params = list(self._module.parameters())
        start = [param.detach().clone() for param in params]
        norm = torch.cat([param.grad.ravel() for param in params]).norm()
        with torch.no_grad():
            for param in params:
                param += self._sam_rho * param.grad / norm
        self._optimizer.zero_grad()
        logits = self._module(self.torch_images(images))
        torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels).long(), label_smoothing=self._label_smoothing
        ).backward()
        with torch.no_grad():
            for param, value in zip(params, start, strict=True):
                param.copy_(value)
            for name, buffer in self._module.named_buffers():  # those of the first pass
                buffer.copy_(buffers[name])

    def assert_same_logits(self, images):
        batch = make_batch(images, np.zeros(len(images), np.int32))
        ours, _ = self._eval_step(self.state.params, self.state.batch_stats, batch)
        with torch.no_grad():
            theirs = self._module.eval()(self.torch_images(images))
        assert_close(ours, theirs, "logits")

    def assert_same_step(self, images, labels, num_counting=None):
        """Takes a step on both sides; PyTorch uses only the first num_counting examples."""
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
                # Compares the batch's contribution; PyTorch's variance is the unbiased one.
                fraction, n = self._batch_norms[name.removesuffix(".running_var")]
                change += fraction * old_ours[name]
                expected = (expected + fraction * old_theirs[name]) * (n - 1) / n
            assert_close(change, expected, name)

    def _ours(self):
        trees = (self.state.params, self.state.batch_stats)
        params, batch_stats = (weights.to_state_dict(tree, self._module) for tree in trees)
        return params | batch_stats

    def _theirs(self):
        return {name: tensor.clone() for name, tensor in self._module.state_dict().items()}


def make_batch(images, labels, num_counting=None):
    num_counting = num_counting or len(labels)
    weights = (jnp.arange(len(labels)) < num_counting).astype(jnp.float32)
    return step.Batch(jnp.asarray(images), jnp.asarray(labels), weights, float(num_counting))


def thin(name):
    layers = models.options_of(name)["layers"]
    layers = tuple(layer // 16 if isinstance(layer, int) else layer for layer in layers)
    return name, dict(layers=layers, dropout=0.0)


THIN = [
    ("airbench", dict(widths=(4, 6, 8), init="sgd")),
    ("airbench", dict(widths=(4, 6, 8), depth=3, bn_momentum=0.9, logit_scale=1 / 9)),
    ("cnn2", dict(filters=(4, 6), dense_units=9)),
    ("cnn3", dict(dropout=(0.0, 0.0, 0.0))),
    ("cnn4", dict(filters=(4, 5, 6, 7), dense_units=9)),
    ("cnn_deep", dict(dropout=(0.0, 0.0))),
    ("cnn_small", {}),
    (
        "cct_7_3x1",
        dict(depth=2, width=8, num_heads=2, attention_dropout=0.0, drop_path=0.0),
    ),
    ("convnext_t", dict(depths=(1, 2), width=4, drop_path=0.0)),
    ("densenet121", dict(depths=(2, 1), growth=4)),
    ("inception_resnet", dict(features=(6, 9), depth=1, stem_features=4)),
    ("mobilenetv2", dict(width=0.25, depths=(1, 2, 1), dropout=0.0)),
    ("preact_resnet18", dict(width=4, depths=(1, 1))),
    ("pyramidnet", dict(depth=8, alpha=7, shake_drop=0.0)),
    ("pyramidnet", dict(depth=11, alpha=7, shake_drop=0.5, bottleneck=True)),
    ("resnet18", dict(width=4)),
    ("resnet18", dict(width=4, depths=(1, 2), stem="imagenet")),
    ("resnet18", dict(width=4, depths=(1, 2), conventions="keras")),
    ("resnet18", dict(width=4, depths=(1, 1), conventions="keras", stem="imagenet")),
    ("resnet34", dict(width=4, depths=(1, 2, 1, 1))),
    ("resnet50", dict(width=4, depths=(1, 2))),
    ("resnet50", dict(width=4, depths=(1, 2), conventions="torch")),
    ("resnet50", dict(width=4, depths=(1, 2), conventions="torch", stem="cifar")),
    ("speed_resnet", dict(widths=(4, 6, 8), mid_widths=(5, 7, 9))),
    ("resnext29", dict(depths=(1, 1), cardinality=2, width=2)),
    ("senet18", dict(width=4, depths=(1, 1), reduction=2)),
    ("vgg16", dict(layers=(4, "M", 8, "A", 6))),
    ("vgg16_bn", dict(layers=(4, "M", 8, 8, "M"), dense_units=9, dropout=0.0)),
    ("wide_resnet_28_10", dict(depth=10, widen_factor=1)),
    *map(thin, ("cnn9", "cnn13", "school", "simple", "simple_initial", "stacked3", "vgg19")),
]


def name_of(case):
    name, options = case
    return "-".join([name, *(options[key] for key in ("conventions", "stem") if key in options)])


@pytest.mark.parametrize("case", THIN, ids=name_of)
def test_logits(case):
    name, options = case
    images, _ = make_data(3)
    pair = Pair(name, random=True, **options)
    pair.assert_same_logits(images)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in THIN
        if case[0]
        in (
            *("airbench", "cct_7_3x1", "cnn_deep", "cnn_small", "convnext_t", "densenet121"),
            *("inception_resnet", "mobilenetv2", "preact_resnet18", "resnet50", "school"),
            *("senet18", "speed_resnet", "stacked3", "vgg16_bn", "wide_resnet_28_10"),
        )
        or case[1].get("shake_drop") == 0
        or len(case[1].keys() & {"conventions", "stem"}) == 1
    ]
    + [("resnext29", dict(depths=(1,), cardinality=2, width=2))],
    ids=name_of,
)
def test_gradients_and_statistics(case, float64):
    """With SGD, the update of a parameter is proportional to its gradient."""
    name, options = case
    pair = Pair(name, dtype=float64, random=True, **options)
    pair.assert_same_step(*make_data(4))


@pytest.mark.parametrize(
    "case",
    [(name, {}) for name in models.MODELS if torch_models.find(name)]
    + [("resnet18", {"conventions": "keras", "stem": "imagenet"})]
    + [
        ("resnet50", {"conventions": "torch"}),
        ("resnet50", {"conventions": "torch", "stem": "cifar"}),
    ],
    ids=name_of,
)
def test_size_and_constants(case):
    """Compares the full-size networks without running them."""
    name, options = case
    ours = nnx.eval_shape(lambda: models.create(name, 100, make_rngs(params=0), **options))
    with torch.device("meta"):
        theirs = torch_models.create(name, 100, **options)
    for kind, arrays in (
        (nnx.Param, theirs.parameters()),
        (nnx.BatchStat, [array for array in theirs.buffers() if array.ndim]),
    ):
        leaves = jax.tree.leaves(nnx.state(ours, kind))
        assert sum(math.prod(leaf.shape) for leaf in leaves) == sum(x.numel() for x in arrays)
    for path, layer in nnx.iter_modules(ours):
        if isinstance(layer, nnx.BatchNorm | nnx.LayerNorm):
            other = theirs.get_submodule(".".join(map(str, path)))
            assert layer.epsilon == other.eps
            if isinstance(layer, nnx.BatchNorm):
                assert layer.momentum == pytest.approx(1 - other.momentum)
        elif isinstance(layer, nnx.Dropout):
            assert layer.rate == theirs.get_submodule(".".join(map(str, path))).p


def test_pyramidnet_with_bottlenecks_has_the_published_size():
    """The filters of the two versions are compared with fewer blocks, in `test_logits`."""
    with torch.device("meta"):
        network = torch_models.create("pyramidnet", 100, depth=200, alpha=240, bottleneck=True)
    # pyramidnet200_a240_bn_cifar100 in osmr/imgclsmob.
    assert sum(x.numel() for x in network.parameters()) == 26_844_952


def test_adam_on_cnn3(float64):
    # With an eps far below the gradients, the first update would be their sign, which is noise for
    # gradients near zero.
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
        width=8,
        depths=(1, 1),
    )
    images, labels = make_data(8)
    for part in (slice(0, 4), slice(4, 8)):
        pair.assert_same_step(images[part], labels[part])
    pair.transplant()  # for the logits: the running variances differ by design
    pair.assert_same_logits(images)


def test_sam_on_resnet18(float64):
    """The gradient of the second pass is clipped, that of the first pass is not."""
    torch_sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
    clip_norm = 2.0
    ours = optim.create("sgd", 0.1, momentum=0.9, weight_decay=1e-3, clip_norm=clip_norm)
    pair = Pair(
        "resnet18",
        (ours, torch_sgd),
        sam_rho=0.15,
        clip_norm=clip_norm,
        dtype=float64,
        width=8,
        depths=(1, 1),
    )
    images, labels = make_data(8)
    labels[:4] = 0  # gradients of the same class add up
    for part in (slice(0, 4), slice(4, 8)):
        pair.assert_same_step(images[part], labels[part])
    assert pair.clipped == [True, False]  # clipping hides the scale of a gradient


def test_partial_batch_equals_a_smaller_batch(float64):
    pair = Pair("cnn3", dtype=float64, dropout=(0.0, 0.0, 0.0))
    images, labels = make_data(8)
    pair.assert_same_step(images, labels, num_counting=5)


def test_engine_reaches_the_loss_of_pytorch():
    """Trains in float32 in a loop on the device, with a partial batch at the end of each epoch."""
    options = dict(eps=1e-7, weight_decay=1e-3)
    pair = Pair(
        "cnn3",
        (optim.create("adam", 1e-3, **options), partial(torch.optim.Adam, lr=1e-3, **options)),
        dropout=(0.0, 0.0, 0.0),
    )
    images, labels = make_data(11)
    runner = engine.create(
        lambda axis_name: pair.train_step,
        lambda seed: pair.init(),
        images,
        labels,
        batch_size=8,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
    )
    state = runner.init()
    for epoch in range(3):
        plan = runner.plan(state, epoch)
        state, metrics = runner.run(state, runner.no_metrics(), plan, 2)
        first, last = np.array(plan.order)
        last = last[:3]
        theirs = 8 * pair.torch_step(images[first], labels[first])
        theirs += 3 * pair.torch_step(images[last], labels[last])
        assert_close(fetch(metrics)["loss"], theirs / 11, f"loss of epoch {epoch}")
