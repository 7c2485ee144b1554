"""The optimizers of configs/speedrun equal those of the scripts that they reproduce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from cifar_jax import config, step
from cifar_jax.experiment import parts

# Networks that are small enough to update at every step of a run.
THIN = {
    "airbench": {"widths": (2, 3, 4)},
    "speed_resnet": {"widths": (2, 3, 4), "mid_widths": (2, 3, 4)},
}


def load(name):
    return config.load(tiny.ROOT / "configs" / "speedrun" / f"{name}.py")


def legacy(lr, wd, total, rise, final):
    """Returns the numbers of a legacy script of airbench; lr and wd are per 1,024 examples."""
    scale = 1024 * (1 + 1 / (1 - 0.85))
    lr, wd = lr / scale, wd * 1024 / scale
    warmup = int(total * rise)

    def factor(t):
        if t < warmup:
            return 0.2 * (1 - t / warmup) + t / warmup
        done = (t - warmup) / (total - warmup)
        return 1 - done + final * done

    return dict(
        batch_size=1024,
        loss_is_sum=True,
        total=total,
        momentum=0.85,
        groups={
            "conv_stem/bias": (lr, wd / lr, lambda t: factor(t) if t < 3 * 48 else None),
            "/bn": (64 * lr, wd / (64 * lr), factor),
            "": (lr, wd / lr, factor),
        },
    )


def navier(t):
    return t / 108 if t < 108 else (432 - t) / (432 - 108)


# {config: the script's own numbers}. `groups` is {part of the path: (PyTorch's learning rate,
# PyTorch's weight decay, function from the step to the factor of the learning rate)}; the first
# part that a path contains applies. A factor of None means that the parameter no longer trains, a
# weight decay of None that muon trains it.
SCRIPTS = {
    "airbench94": dict(
        batch_size=2000,
        loss_is_sum=True,
        total=200,
        momentum=0.85,
        groups={
            "conv_stem/bias": (0.053, 0.004 / 0.053, lambda t: 1 - t / 75 if t < 75 else None),
            "/bn": (0.053, 0.004 / 0.053, lambda t: 1 - t / 200),
            "dense": (0.67, 0.004 / 0.67, lambda t: 1 - t / 200),
            "": (0.24, None, lambda t: 1 - t / 200),
        },
    ),
    "airbench95": legacy(10.0, 0.0153, 720, 0.23, 0.07),
    "airbench96": legacy(9.0, 0.012, 1776, 0.1, 0.0),
    # The submission takes 420 steps.
    "cifar100_75": dict(
        batch_size=1024,
        loss_is_sum=False,
        total=432,
        momentum=0.9,
        groups={
            "dense": (1.38, 5e-4, navier),
            "bias": (1.38, 0.0, navier),
            "scale": (1.38, 0.0, navier),
            "": (0.18, None, navier),
        },
    ),
}


def gradients(total, size):
    """Returns made-up gradients of the mean loss, [total, size] float64."""
    return 1e-3 * np.sin(1.7 * np.arange(total)[:, None] + np.arange(size))


def train(cfg, total):
    """Trains all steps of a run on made-up gradients.

    Returns:
      By path: whether muon trains a parameter, its initial value, its values after each step
      [total, size], and its learning rates [total].
    """
    network = step.abstract(lambda rngs: parts.build_network(cfg, 10, jnp.float32, rngs))
    tuning = parts.build_fine_tuning(cfg, network)
    groups = parts.build_groups(cfg, network, tuning)
    optimizer = parts.build_optimizer(cfg, tuning, groups=groups)
    per_epoch = total // cfg.num_epochs
    schedule = parts.build_schedule(cfg, per_epoch)
    learning_rates = parts.build_learning_rates(cfg, schedule, per_epoch)
    shapes = flatten_dict(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    start = {p: np.full(x.shape, 0.3, np.float32) for p, x in shapes.items() if tuning.trains(p)}

    def update(carry, inputs):
        params, state = carry
        t, grads = inputs
        updates, state = optimizer.update(grads, state, params)
        updates = step.scaled(updates, learning_rates(t), groups.index)
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), (params, learning_rates(t))

    params = jax.tree.map(jnp.asarray, unflatten_dict(start))
    grads = {p: gradients(total, x.size).reshape(-1, *x.shape) for p, x in start.items()}
    grads = jax.tree.map(jnp.float32, unflatten_dict(grads))
    run = jax.jit(lambda carry, grads: jax.lax.scan(update, carry, (jnp.arange(total), grads))[1])
    params, rates = run((params, optimizer.init(params)), grads)
    uses_muon = {path: groups.uses("muon", path) for path in start}
    params = {p: np.reshape(x, (total, -1)) for p, x in flatten_dict(params).items()}
    rates = {path: np.asarray(rates[:, groups.index(path)]) for path in start}
    return uses_muon, start, params, rates


@pytest.mark.parametrize("name", SCRIPTS)
def test_sgd_equals_the_script_and_muon_has_its_learning_rates(name):
    torch = pytest.importorskip("torch")
    script = SCRIPTS[name]
    total, batch_size = script["total"], script["batch_size"]
    cfg = load(name)
    with cfg.unlocked():
        cfg.model.update(THIN[cfg.model.name])
    assert cfg.drop_last and cfg.batch_size == batch_size
    assert cfg.num_epochs * (50_000 // batch_size) == total

    uses_muon, start, found, rates = train(cfg, total)
    used = set()
    for path, value in start.items():
        text = "/".join(map(str, path))
        part = next(part for part in script["groups"] if part in text)
        used.add(part)
        lr, weight_decay, factor = script["groups"][part]
        assert uses_muon[path] == (weight_decay is None)
        if uses_muon[path]:
            expected = [lr * factor(t) for t in range(total)]
            np.testing.assert_allclose(rates[path], expected, atol=1e-6 * lr)
            continue
        param = torch.tensor(value.ravel(), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD(
            [param], lr, momentum=script["momentum"], weight_decay=weight_decay, nesterov=True
        )
        scale = batch_size if script["loss_is_sum"] else 1
        expected = []
        for t, grad in enumerate(scale * gradients(total, value.size)):
            if factor(t) is not None:
                optimizer.param_groups[0]["lr"] = lr * factor(t)
                param.grad = torch.from_numpy(grad)
                optimizer.step()
            expected.append(param.detach().numpy().copy())
        assert np.ptp(expected) > 1e-3, text  # it trained
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found[path], expected, atol=tolerance, err_msg=text)
    assert used == script["groups"].keys()


@pytest.mark.parametrize("name", ("airbench95", "airbench96"))
def test_lookahead_equals_the_script(name):
    total = SCRIPTS[name]["total"]
    averaging = parts.build_averaging(load(name), 48)
    assert averaging.pulls_back
    counts = (4, 5, 7, 300, total // 5 * 5)
    rates = [averaging.rate(jnp.int32(count - 1)) for count in counts]
    expected = [0 if n % 5 else 1 - 0.95**5 * (n / total) ** 3 for n in counts]
    np.testing.assert_allclose(rates, expected, atol=1e-6)
