"""A run that is small enough for tests: a few images, a thin cnn2, four steps per epoch.

`python tests/tiny.py WORKDIR NUM_EPOCHS` runs it as a program, for tests that kill it.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cifar_jax import augment, config, data, engine, models, optim, step
from cifar_jax import train as training

# The network of these runs: two convolutions, with dropout. Few filters, because without LLVM's
# optimization, as tests compile, a step takes several times as long as usual.
NETWORK = {"name": "cnn2", "filters": (4, 8), "dense_units": 32, "dropout": (0.1, 0.1, 0.1)}
# One with a body and a head, for images of any size.
SPLIT_NETWORK = {"name": "vgg16", "layers": (4, "M", "B", 8, "M", "A")}
ROOT = Path(__file__).resolve().parent.parent
# All config files except base.py, which only re-exports the base config.
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.name != "base.py")


def dataset(num_train: int = 100, num_test: int = 40, num_val: int = 0) -> data.Dataset:
    """Returns images of ten classes, each a color with noise: learnable from a few examples."""
    rng = np.random.default_rng(0)
    colors = rng.integers(40, 216, (10, 1, 1, 3))

    def split(count: int) -> data.Split:
        labels = rng.integers(0, 10, count).astype(np.int32)
        images = colors[labels] + rng.normal(0, 20, (count, 32, 32, 3))
        return data.Split(images.clip(0, 255).astype(np.uint8), labels)

    return data.Dataset(
        train=split(num_train),
        val=split(num_val) if num_val else None,
        test=split(num_test),
        info=data.DatasetInfo(
            class_names=tuple(f"class {i}" for i in range(10)),
            mean=np.float32([0.5, 0.5, 0.5]),
            std=np.float32([0.25, 0.25, 0.25]),
        ),
    )


def load(name, *, val_fraction=0.0, **_) -> data.Dataset:
    """Replaces data.load in tests of commands, which take no data set as an argument."""
    return dataset(num_val=32 if val_fraction else 0)


def create_network(name, num_classes, rngs, *, dtype, **options):
    """Replaces models.create in tests of experiments whose networks would take too long."""
    del options  # those of the other network, such as the size of its images
    network = SPLIT_NETWORK if models.is_split(name) else NETWORK
    small = {k: v for k, v in network.items() if k != "name"}
    return models.MODELS[network["name"]](num_classes, rngs, dtype=dtype, **small)


def train(cfg, folder, *, dataset=None, num_devices=1):
    """Trains on the given data set, by default the tiny one, and on one device by default."""
    dataset = dataset or load(cfg.data.name, val_fraction=cfg.data.val_fraction)
    mesh = engine.make_mesh(jax.devices()[:num_devices])
    return training.train(cfg, folder, dataset=dataset, mesh=mesh)


def make_config(**overrides):
    """Returns a smaller quickstart config; overrides are fields with "__" instead of a dot."""
    cfg = config.load_complete(ROOT / "configs" / "quickstart.py")
    small = dict(
        model=ConfigDict(NETWORK),
        batch_size=32,
        num_epochs=2,
        eval_batch_size=16,
        selected_on="last",
        data__val_fraction=0.0,
    )
    _set(cfg, **small | overrides)
    return cfg


def _set(cfg, **overrides):
    with cfg.unlocked():
        for name, value in overrides.items():
            *groups, field = name.split("__")
            target = cfg
            for group in groups:
                target = target[group]
            target[field] = value


def write_log(folder, experiment, accuracy, *, seed=0, num_epochs=None, **overrides):
    """Writes the log of a made-up run, in the format of benchmarks.accuracy."""
    cfg = config.load_complete(ROOT / "configs" / f"{experiment}.py")
    _set(cfg, seed=seed, num_epochs=num_epochs or cfg.num_epochs, **overrides)
    summary = {
        "experiment": experiment, "epochs": cfg.num_epochs, "num_params": 2_119_252, "seed": seed,
        "test_accuracy": accuracy, "test_loss": 1.5, "train_seconds": 60.0, "selected_on": "test",
        "step_time_ms": {"median": 7.25}, "device": {"kind": "Abacus", "count": 2},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(cfg.to_json())


def make_engine(
    name="cnn2",
    options=None,
    *,
    num_examples=100,
    train=None,
    num_devices=1,
    optimizer=None,
    ops="flip|crop(2)",
    mix="",
    **kwargs,
):
    """Returns an engine for the given split, by default the tiny one, with batches of 16.

    The network is the tiny one by default, or the named one, with the given options.
    """
    train = train or dataset(num_examples).train
    options = {k: NETWORK[k] for k in NETWORK if name == "cnn2" and k != "name"} | (options or {})
    create = partial(models.create, name, 10, **options)
    networks = step.split_networks(create)
    optimizer = optimizer or optim.create("sgd", 0.01, momentum=0.9)

    def make_train_step(axis_name):
        return step.make_train_step(
            networks.train,
            optimizer,
            augment=augment.parse(ops),
            preprocess=partial(augment.normalize, mean=0.5, std=0.25),
            mix=augment.parse_mix(mix),
            axis_name=axis_name,
        )

    return engine.create(
        make_train_step,
        partial(step.init, create, optimizer),
        train.images,
        train.labels,
        batch_size=kwargs.pop("batch_size", 16),
        mesh=engine.make_mesh(jax.devices()[:num_devices]),
        **kwargs,
    )


def run_steps(eng, state, num_steps, steps_per_call=None):
    """Takes `num_steps` steps from a state; returns (state, metrics of the last epoch)."""
    done = int(np.ravel(state.step)[0])
    end = done + num_steps
    metrics = eng.no_metrics()
    while done < end:
        if done % eng.steps_per_epoch == 0:
            metrics = eng.no_metrics()
        epoch = done // eng.steps_per_epoch
        left = min(end, (epoch + 1) * eng.steps_per_epoch) - done
        count = min(left, steps_per_call or left)
        state, metrics = eng.run(state, metrics, eng.plan(state, epoch), count)
        done += count
    return state, metrics


def largest_difference(tree, reference) -> float:
    """Returns the largest |a - b| of any leaf, relative to that leaf's largest |b|."""

    def difference(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)

    largest = max(jax.tree.leaves(jax.tree.map(difference, tree, reference)))
    print(f"largest difference {largest:.2e}")  # shown by pytest -s
    return largest


def distance(tree, reference) -> float:
    """Returns |tree - reference| / |reference| over all leaves together.

    Suits runs of many steps: a difference in the last bit grows whenever it changes the sign of a
    ReLU's input, and its relative size is largest in leaves with small values.
    """

    def norm(tree):
        leaves = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree))
        return np.sqrt(sum((leaf**2).sum() for leaf in leaves))

    share = norm(jax.tree.map(np.subtract, *jax.device_get((tree, reference)))) / norm(reference)
    print(f"distance {share:.2e}")  # shown by pytest -s
    return share


if __name__ == "__main__":
    from cifar_jax.runtime.signals import Preempted

    try:
        train(
            make_config(
                num_epochs=int(sys.argv[2]),
                selected_on="val",
                data__val_fraction=0.2,
                checkpoint__every_minutes=0.0,  # a checkpoint after every call
            ),
            sys.argv[1],
        )
    except Preempted as stopped:
        print(stopped)
        sys.exit(stopped.exit_code)
