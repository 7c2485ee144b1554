"""Times epochs, each in its own process, and compares the contenders."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from benchmarks import harness
from benchmarks.epoch.contenders import BATCH_SIZE, CONFIG, CONTENDERS
from benchmarks.harness import Record
from benchmarks.idle import background_load, processor_seconds

_WARM_UP_BATCHES = 100


def time_epoch(name: str, data_dir: str | None, limit: int) -> Record:
    """Times one epoch of a contender in this process.

    Args:
      name: A key of CONTENDERS.
      data_dir: The TFDS directory with CIFAR-100, "" for the default one, or None to train on
        synthetic images.
      limit: The number of images, or 0 for all.

    Returns:
      The seconds, loss, accuracy and number of images.

    Raises:
      RuntimeError: If the loss becomes NaN or infinite.
    """
    import cifar_jax.data

    data_set = "cifar100" if data_dir is not None else "synthetic"
    dataset = cifar_jax.data.load(
        data_set, data_dir=data_dir, val_fraction=0.17, val_seed=42, limit=limit
    )
    images, labels = dataset.train
    count = len(images)
    train = CONTENDERS[name](images, labels)
    # The last batch of the warm-up has the size of the epoch's last one, because some contenders
    # compile once per batch size.
    train(min(_WARM_UP_BATCHES * BATCH_SIZE + (count % BATCH_SIZE), count))
    start = time.perf_counter()
    loss, accuracy = train(count)
    seconds = time.perf_counter() - start
    harness.check_loss(loss)
    return {"seconds": seconds, "loss": loss, "accuracy": accuracy, "images": count}


def time_epoch_in_subprocess(name: str, data_dir: str | None, limit: int) -> Record:
    """Runs `time_epoch` in a new process.

    Raises:
      subprocess.CalledProcessError: If it fails there.
    """
    argv = [sys.executable, "-m", "benchmarks.epoch", name, "--one", "--limit", str(limit)]
    argv += ["--data_dir", data_dir] if data_dir is not None else ["--synthetic"]
    env = dict(os.environ)
    if name.startswith("keras_"):
        env["KERAS_BACKEND"] = name.removeprefix("keras_")
    env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def packages(names: Sequence[str]) -> list[str]:
    """Returns the optional packages that contenders need."""
    return [p for p in ("torch", "keras") if any(p in name for name in names)]


def comparison(turns: dict[str, list[Record]]) -> Record:
    """Summarizes the turns of each contender, including "cifar_jax".

    Returns:
      The record's fields `seconds`, the median of each contender; `fastest_other`; and
      `times_as_fast`, the median, min and max over rounds of its time / the time of cifar_jax.
    """
    seconds = {name: [turn["seconds"] for turn in results] for name, results in turns.items()}
    medians, fastest = harness.compare(seconds, "cifar_jax")
    return {
        "seconds": medians,
        "fastest_other": fastest,
        "times_as_fast": harness.ratio(seconds[fastest], seconds["cifar_jax"]),
    }


def measure_contenders(
    names: Sequence[str], data_dir: str | None, limit: int, num_rounds: int
) -> Record:
    """Interleaves epochs of the contenders and returns the record.

    Args:
      names: Keys of CONTENDERS, among them "cifar_jax".
      data_dir: As in `time_epoch`.
      limit: As in `time_epoch`.
      num_rounds: The number of epochs of each contender.

    Raises:
      subprocess.CalledProcessError: If a contender fails.
    """
    from cifar_jax.runtime.environment import environment

    versions = {package: version(package) for package in packages(names)}

    def take_turn(name: str) -> Record:
        try:
            return time_epoch_in_subprocess(name, data_dir, limit)
        except subprocess.CalledProcessError:
            print(f"{name} failed; see above", file=sys.stderr)
            raise

    def report(i: int, name: str, turn: Record) -> None:
        print(f"round {i + 1}: {name} {turn['seconds']:.1f} s", flush=True)

    before = processor_seconds()
    turns = {name: partial(take_turn, name) for name in names}
    results = harness.interleave(turns, num_rounds, report)
    record = {
        "config": CONFIG,
        "images": results["cifar_jax"][0]["images"],
        "batch_size": BATCH_SIZE,
        "rounds": num_rounds,
        **comparison(results),
        "turns": results,
        **harness.background(background_load(before, processor_seconds())),
        **environment(),
    }
    record["versions"] |= versions
    return record
