"""Compares the speedruns in PyTorch with NumPy, with the published formulas and with the engine."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.lib.stride_tricks import sliding_window_view

from cifar_jax import config, data, engine, experiment, step
from cifar_jax.errors import UserError
from cifar_jax.experiment import parts
from cifar_jax.metrics import fetch

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

from benchmarks.speedrun import (  # noqa: E402
    in_torch,
    torch_images,
    torch_initialization,
    torch_optimizers,
)
from benchmarks.torch_models import weights  # noqa: E402

NAMES = ("airbench94", "airbench95", "airbench96", "cifar100_75")
# Networks that are small enough to train here.
THIN = {
    "airbench": {"widths": (6, 8, 10)},
    "speed_resnet": {"widths": (6, 8, 10), "mid_widths": (5, 7, 9)},
}


def make_config(name, *, num_epochs=2, batch_size=16, **overrides):
    """Returns a checked config with a thin network; overrides have "__" instead of a dot."""
    cfg = config.load(tiny.ROOT / "configs" / "speedrun" / f"{name}.py")
    small = {"data__name": "synthetic", "num_epochs": num_epochs, "batch_size": batch_size}
    small |= {"eval_batch_size": 16, "dtype": "float32"}
    if name == "cifar100_75":
        small |= {"augment__train_sizes": (20, 32), "augment__train_size_epochs": (1,)}
        small |= {"optim__warmup_epochs": 0.5}
    with cfg.unlocked():
        cfg.model.update(THIN[cfg.model.name])
        tiny._set(cfg, **small | overrides)
    return experiment.checked(cfg)


def dataset(num_train=64, num_test=40):
    """Returns the tiny data set, with a mean and a std that differ between channels."""
    new = {"mean": np.float32([0.5, 0.45, 0.4]), "std": np.float32([0.25, 0.2, 0.3])}
    images = tiny.dataset(num_train, num_test)
    return images._replace(info=images.info._replace(**new))


def make(name, clock="T1", **overrides):
    return in_torch.InTorch(make_config(name, **overrides), dataset(), clock)


def images_of(shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(0.3, 1, shape), dtype=torch.float32)


@pytest.mark.parametrize("centered", (False, True))
def test_whitening_equals_numpy(centered):
    images = images_of((50, 3, 9, 8))
    images[:, 1] += 0.5 * images[:, 0]
    filters = np.float64(torch_initialization.whitening_filters(images, centered)).reshape(24, 12)
    np.testing.assert_array_equal(filters[12:], -filters[:12])

    windows = sliding_window_view(np.float64(images), (2, 2), axis=(2, 3))
    patches = np.moveaxis(windows, 1, 3).reshape(-1, 12)  # channel, row, column
    moment = patches.T @ patches / len(patches)
    if centered:
        moment = np.cov(patches.T, bias=True)
    values, vectors = np.linalg.eigh(moment)
    expected = np.flipud((vectors / np.sqrt(values + 5e-4)).T)
    expected *= np.sign(expected[:, :1])
    np.testing.assert_allclose(filters[:12], expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ("airbench94", "airbench96", "cifar100_75"))
def test_initialization(name):
    speedrun = make(name)
    network, init = speedrun.network, speedrun._config.model.get("init", "sgd")
    with torch.no_grad():
        for x in network.state_dict().values():
            x.fill_(7)
    torch.manual_seed(0)
    torch_initialization.initialize(network, init)
    state = network.state_dict()
    bias, head = state["conv_stem.bias"], state["dense.weight"]
    if name == "airbench94":
        assert head.std() == pytest.approx(1, abs=1e-5)
        assert 0.2 < bias.abs().max() <= 12**-0.5
    else:
        assert not bias.any()
        assert 0.9 * head.shape[1] ** -0.5 < head.abs().max() <= head.shape[1] ** -0.5
    kernel = state["blocks.0.conv1.weight"]  # has more input channels than filters
    assert torch.equal(kernel, torch.nn.init.dirac_(torch.empty_like(kernel)))
    kernel = state["blocks.1.conv1.weight"]
    assert torch.all(kernel[6:] != 0) and kernel[6:].abs().max() <= (9 * 6) ** -0.5
    norm = {key: x for key, x in state.items() if ".bn1." in key}
    expected = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    for key, x in norm.items():
        assert torch.all(x == expected.get(key.rpartition(".")[2], 0)), key


def published_direction(matrix):
    """Applies the polynomial of airbench94_muon to the singular values of a matrix [R, C]."""
    u, s, v = np.linalg.svd(np.float64(matrix), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (40, 4, 3, 3), (5, 5, 1, 1)])
def test_two_steps_of_muon_follow_the_published_formula(shape):
    rng = np.random.default_rng(0)
    start, *grads = (rng.standard_normal(shape) for _ in range(3))
    kernel = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    muon = torch_optimizers.Muon(
        [kernel], 0.24, momentum=0.6, nesterov=True, rescales=True, dtype=torch.float32
    )
    expected, velocity = start, 0
    for grad in grads:
        kernel.grad = torch.tensor(grad, dtype=torch.float32)
        muon.step()
        velocity = 0.6 * velocity + grad
        direction = published_direction((grad + 0.6 * velocity).reshape(len(start), -1))
        expected = expected * np.sqrt(len(start)) / np.linalg.norm(expected)
        expected = expected - 0.24 * direction.reshape(shape)
    np.testing.assert_allclose(kernel.detach(), expected, atol=1e-5)


def test_crops_and_squares_are_uniform_and_inside():
    torch.manual_seed(0)
    image = images_of((1, 3, 8, 8))
    padded = np.pad(image[0], ((0, 0), (2, 2), (2, 2)), "reflect")
    crops = torch_images.crop(image.expand(500, -1, -1, -1), 2).numpy()
    found = {
        (i, j): np.all(crops == padded[:, i : i + 8, j : j + 8], axis=(1, 2, 3)).sum()
        for i in range(5)
        for j in range(5)
    }
    assert sum(found.values()) == 500 and min(found.values()) >= 8

    erased = torch_images.erase(torch.ones(500, 3, 6, 6), 4).numpy() == 0
    corners = set()
    for mask in erased:
        rows, columns = (np.flatnonzero(mask.any(axis=(0, axis))) for axis in (2, 1))
        assert mask.sum() == 3 * 4 * 4 and len(rows) == len(columns) == 4
        corners.add((rows[0], columns[0]))
    assert len(corners) == 9


def test_images_are_mirrored_in_every_other_epoch():
    torch.manual_seed(0)
    augment = make("airbench94", augment__ops="alternating_flip").augment
    images = images_of((60, 3, 4, 4))
    first = torch_images.mirror_half(images)
    is_mirrored = (first == images.flip(3)).all(dim=(1, 2, 3))
    assert 15 < is_mirrored.sum() < 45
    assert torch.equal(first[~is_mirrored], images[~is_mirrored])
    assert torch.equal(augment(first, 0), first) and torch.equal(augment(first, 2), first)
    assert torch.equal(augment(first, 1), first.flip(3))


@pytest.mark.parametrize("count", (1, 2, 6))
def test_views_equal_those_of_the_engine(count):
    from cifar_jax.augment import make_views

    images = images_of((3, 3, 6, 6))
    expected, expected_weights = make_views(jnp.asarray(images.permute(0, 2, 3, 1)), count)
    found = torch_images.views(images, count)
    np.testing.assert_allclose([weight for weight, _ in found], expected_weights)
    found = torch.cat([view for _, view in found]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_epochs", (2, 5))
def test_learning_rates_equal_the_engines(name, num_epochs):
    cfg = make_config(name, num_epochs=num_epochs)
    steps_per_epoch, total = 4, 4 * num_epochs
    network = step.abstract(lambda rngs: parts.build_network(cfg, 10, jnp.float32, rngs))
    groups = parts.build_groups(cfg, network, parts.build_fine_tuning(cfg, network))
    schedule = parts.build_schedule(cfg, steps_per_epoch)
    rates = parts.build_learning_rates(cfg, schedule, steps_per_epoch)
    rates = np.stack([rates(t) for t in range(total)])

    speedrun = make(name, num_epochs=num_epochs)
    assert speedrun.steps_per_epoch == steps_per_epoch
    names = {id(param): key for key, param in speedrun.network.named_parameters()}
    found = {names[id(p)]: r for group, r, _ in speedrun._schedules for p in group["params"]}
    indices = flatten_dict(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    del indices["conv_stem", "kernel"]
    indices = {path: np.full((1,) * x.ndim, groups.index(path)) for path, x in indices.items()}
    indices = weights.to_state_dict(unflatten_dict(indices), speedrun.network)
    assert indices.keys() == found.keys()
    for key, index in indices.items():
        expected = rates[:, int(index)]
        np.testing.assert_allclose(found[key], expected, atol=2e-6 * expected.max(), err_msg=key)


@pytest.mark.usefixtures("library_convolutions")
@pytest.mark.parametrize("name", ("airbench94", "airbench96", "cifar100_75"))
def test_four_steps_equal_the_engine(name):
    """Both start from the same parameters and take the same batches, without augmentation.

    The last group of cifar100_75 then has inputs of an odd size. With images of 20 instead of 24
    pixels, their size is even, and the identity of the 2x2 kernel reads only padding at the border:
    its outputs there are exactly 0, and in the first steps the gradient of a maximum over equal
    values is not unique.

    The images are noise, because the gradients of whitened images of a single color are mostly
    rounding errors.
    """
    changes = {"augment__ops": ""}
    changes |= {"lookahead__every": 3} if name == "airbench96" else {}
    changes |= {"augment__train_sizes": (24, 32)} if name == "cifar100_75" else {}
    cfg, images = make_config(name, batch_size=32, **changes), dataset()
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    images = images._replace(train=images.train._replace(images=noise))
    mesh = engine.make_mesh(jax.devices()[:1])
    program = experiment.create(cfg, images, mesh=mesh).engine
    state = program.init()
    speedrun = in_torch.InTorch(cfg, images, "T1")
    weights.transplant(state.params, state.batch_stats, speedrun.network)
    start = {key: x.clone() for key, x in speedrun.network.state_dict().items()}
    speedrun.start()
    inputs = speedrun.normalize(torch.tensor(images.train.images))
    labels = torch.tensor(images.train.labels.astype(np.int64))
    for epoch in range(2):
        plan = program.plan(state, epoch)
        losses = [
            speedrun.train_step(2 * epoch + i, inputs[indices], labels[indices]).item()
            for i, indices in enumerate(torch.tensor(np.asarray(plan.order)).long())
        ]
        state, metrics = program.run(state, program.no_metrics(), plan, 2)
        assert fetch(metrics)["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    convert = partial(weights.to_state_dict, module=speedrun.network)
    ours = speedrun.network.state_dict()
    for key, x in convert(state.params).items():
        change = (x - start[key]).abs().max()
        assert change > 1e-4 or key == "conv_stem.weight", key
        difference = (ours[key] - x).abs().max()
        print(f"{key}: {difference / x.abs().max():.1e}")  # shown by pytest -s
        assert difference <= 1e-4 * x.abs().max(), key
    for key, x in convert(state.batch_stats).items():
        # PyTorch's running variances are the unbiased ones.
        tolerance = 1e-3 if "mean" in key else 0.02
        np.testing.assert_allclose(ours[key], x, rtol=tolerance, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["airbench94", "airbench96", "cifar100_75"])
def test_a_thin_run_learns(name):
    images = data.load("synthetic", limit=600)
    images = images._replace(test=data.Split(*(x[:200] for x in images.test)))
    small = dict(num_epochs=4, batch_size=64, eval_batch_size=200)
    cfg = make_config(name, model__widths=(8, 16, 16), **small)
    speedrun = in_torch.InTorch(cfg, images, "T2" if name == "cifar100_75" else "T1")
    outcome = speedrun.run(0)
    # Without learning, the accuracy is 0.1 and the loss 2.3.
    assert min(outcome.accuracy, outcome.single_view_accuracy) > 0.3 and outcome.seconds > 0
    assert outcome.train_loss < 2
    assert speedrun.run(0)[1:] == outcome[1:]
    assert speedrun.run(1, np.zeros(600, np.int32)).accuracy < 0.2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ema__decay": 0.9, "lookahead__every": 0}, "ema.decay must be 0.0, got 0.9"),
        ({"augment__ops": "flip"}, "augment.ops must be"),
        ({"augment__ops": "crop(2, mode='reflect')|alternating_flip"}, "augment.ops must be"),
        ({"optim__schedule": "cosine"}, "schedule 'cosine'"),
        ({"optim__weight_decay": 0.1}, "without weight decay"),
    ],
)
def test_what_no_speedrun_uses_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        make("airbench94", **overrides)
