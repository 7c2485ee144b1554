"""Runs a recipe with several seeds and makes a record of each run."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import harness
from benchmarks.harness import ROOT, Record
from benchmarks.idle import background_load, processor_seconds
from benchmarks.results import settings_of
from cifar_jax import experiment
from cifar_jax.config import flatten, flatten_json
from cifar_jax.config.base import get_config
from cifar_jax.errors import UserError
from cifar_jax.report.published import changed
from cifar_jax.run.workdir import what_counts
from cifar_jax.runtime.environment import environment

# Fields that act between epochs or need more than one call per epoch, unlike a speedrun.
_UNUSED = (
    *("parallel", "plateau.patience", "early_stopping.patience", "transfer.weights"),
    *("transfer.train", "selected_on", "data.val_fraction", "steps_per_call", "trackers", "seed"),
)


def check(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a config that a speedrun can use, checked and resolved.

    Raises:
      UserError: If a field is invalid, or is set but has no meaning in a speedrun.
    """
    values, defaults = flatten(config), flatten(get_config())
    for field in _UNUSED:
        if values[field] != defaults[field]:
            raise UserError(
                f"a speedrun has no use for {field}: leave it at {defaults[field]!r}, "
                f"got {values[field]!r}"
            )
    return experiment.checked(config)


def measure(
    config: ConfigDict, clock: str, framework: str, num_runs: int, first_seed: int
) -> Iterator[Record]:
    """Compiles a recipe, runs it once on random labels, and yields the record of every run.

    Args:
      config: A config that `check` has returned.
      clock: One of records.CLOCKS.
      framework: "jax" or "torch".
      num_runs: The number of runs, with consecutive seeds.
      first_seed: The first seed.

    Raises:
      UserError: If parts of the config do not fit together, or the data cannot be loaded.
    """
    if framework == "torch":
        _check_device(config.dtype)
    dataset = experiment.load_data(config)
    start = time.perf_counter()
    if framework == "torch":
        from benchmarks.speedrun.in_torch import InTorch as Recipe
    else:
        from benchmarks.speedrun.in_jax import InJax as Recipe
    print("compiling, then warming up with a run on random labels ...", flush=True)
    recipe = Recipe(config, dataset, clock)
    made = time.perf_counter()
    # Random labels, so that nothing about the data set is left from the warm-up.
    rng = np.random.default_rng(first_seed)
    labels = rng.permutation(dataset.train.labels)
    recipe.run(first_seed, labels)
    warm = time.perf_counter()
    settings = what_counts(flatten_json(config))
    written = settings_of(config.experiment)
    epochs = (f"num_epochs={config.num_epochs}",) * (config.num_epochs != written["num_epochs"])
    common = {
        "recipe": Path(config.experiment).name,
        "clock": clock,
        "framework": framework,
        "changed": [*changed(settings, written), *epochs],
        "settings_hash": _hash(settings),
        "dtype": config.dtype,
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        "num_images": len(dataset.train.labels),
        "compile_seconds": getattr(recipe, "compile_seconds", None),
        # Older records have none: there, it is part of warm_up_seconds.
        "create_seconds": made - start,
        "warm_up_seconds": warm - made,
        **_versions(framework),
    }
    for seed in range(first_seed, first_seed + num_runs):
        before = processor_seconds()
        outcome = recipe.run(seed)
        load = background_load(before, processor_seconds())
        yield {"seed": seed, **outcome._asdict(), **harness.background(load), **common}


def _check_device(dtype: str) -> None:
    """Checks that a record of PyTorch would name the device and the dtype that it computes with.

    Raises:
      UserError: If JAX uses another device or several, or PyTorch another dtype.
    """
    import torch

    device = "gpu" if torch.cuda.is_available() else "cpu"
    if device != jax.default_backend():
        raise UserError(
            f"PyTorch would compute on the {device}, but JAX, whose device is recorded, uses the "
            f"{jax.default_backend()}: install versions of both for the same device"
        )
    if device == "gpu" and jax.device_count() > 1:
        raise UserError(
            f"PyTorch would use one GPU, but the record would name {jax.device_count()}: set "
            "CUDA_VISIBLE_DEVICES to one of them"
        )
    if device == "cpu" and dtype != "float32":
        raise UserError(f"on CPUs, PyTorch computes in float32, got dtype={dtype!r}")


def _hash(settings: Record) -> str:
    """Returns a text that differs if a recipe's file has changed between runs."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def config_path(name: str) -> Path:
    """Returns the file of a recipe."""
    return ROOT / "configs" / "speedrun" / f"{name}.py"


def _versions(framework: str) -> Record:
    """Returns the environment, with PyTorch's version if that is what runs."""
    found = environment()
    if framework == "torch":
        import torch

        found["versions"]["torch"] = torch.__version__
    return found
