"""Times each network: to the first training step, and from step to step.

    python -m benchmarks.throughput [MODEL ...] [--rounds N] [--seconds S] [--out FILE]

Every network trains by the recipe of one experiment (CONFIGS), augmentation and all, on random
images. Compilation is tracing, lowering and compiling the training program, without a persistent
cache; the first step is the first call, of one step. A round is a call of as many steps as S
seconds hold, at least one; the step time is the median round's. A line of JSON for each network
goes to FILE, with the share of the machine's processor time that went elsewhere meanwhile: above a
few percent its times mean nothing.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.idle import processor_seconds, used_elsewhere
from benchmarks.results import RESULTS, load_config
from cifar_jax import data, experiment
from cifar_jax.environment import environment
from cifar_jax.errors import UserError, unknown

# The experiment whose batch, optimiser and augmentation each network is timed with.
CONFIGS = {
    "cnn13": "hybrid/cnn13_l2",
    "cnn2": "coarse/cnn2_batch64",
    "cnn3": "assignment/cnn3",
    "cnn4": "coarse/cnn4",
    "cnn9": "hybrid/cnn_shallow",
    "cnn_deep": "cifar10/cnn_deep",
    "cnn_small": "cifar10/cnn_small",
    "inception_resnet": "hybrid/inception_resnet",
    "resnet18": "hybrid/resnet18",
    "resnet18 imagenet": "cifar10/resnet18",
    "resnet34": "hybrid/resnet34",
    "resnet50": "callbacks/resnet50",
    "school": "callbacks/school",
    "simple": "callbacks/simple",
    "simple_initial": "callbacks/simple_initial",
    "stacked3": "callbacks/stacked3",
    "vgg16": "coarse/vgg16_transfer",
}
OUT = RESULTS / "throughput.jsonl"
NUM_BATCHES = 4


def measure(name: str, settings: ConfigDict, rounds: int, seconds: float) -> dict[str, Any]:
    """Measures one network and returns its record.

    Args:
      name: of the network, for the record.
      settings: the config that it trains by.
      rounds: calls whose median counts.
      seconds: of a round, about.
    """
    settings = experiment.resolved(settings)
    settings.data.val_fraction = 0.0
    start = time.perf_counter()
    engine = experiment.create(settings, random_data(settings)).engine
    create_seconds = time.perf_counter() - start
    state, metrics = engine.init(), engine.no_metrics()
    plan = jax.block_until_ready(engine.plan(state, 0))

    def run(num_steps: int) -> float:
        nonlocal state, metrics
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(engine.run(state, metrics, plan, num_steps))
        return time.perf_counter() - start

    first_step = run(1)
    num_steps = max(1, int(seconds / run(1)))
    before = processor_seconds()
    times = [run(num_steps) / num_steps for _ in range(rounds)]
    after = processor_seconds()
    batch_size, step_time = settings.batch_size, statistics.median(times)
    return {
        "model": name,
        "config": settings.experiment,
        "batch_size": batch_size,
        "dtype": settings.dtype,
        "num_params": sum(x.size for x in jax.tree.leaves(state.params)),
        "compile_seconds": engine.compile_seconds,
        "create_seconds": create_seconds,
        "first_step_ms": 1e3 * first_step,
        "step_time_ms": {
            "median": 1e3 * step_time,
            "min": 1e3 * min(times),
            "max": 1e3 * max(times),
        },
        "rounds": rounds,
        "steps_per_round": num_steps,
        "images_per_second": batch_size / step_time,
        "used_elsewhere": used_elsewhere(before, after),
        **environment(),
    }


def random_data(settings) -> data.Dataset:
    """Returns NUM_BATCHES batches of noise with as many classes as the config's data have."""
    num_classes = data.num_classes(settings.data.name, settings.data.label)
    rng = np.random.default_rng(0)
    count = NUM_BATCHES * settings.batch_size
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    split = data.Split(images, rng.integers(0, num_classes, count, np.int32))
    return data.Dataset(
        name=settings.data.name,
        label=settings.data.label,
        train=split,
        val=None,
        test=split,
        class_names=tuple(map(str, range(num_classes))),
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
    )


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    row = "{:<18} {:>5} {:>10} {:>9} {:>13} {:>8} {:>7} {:>14}".format
    titles = ("model", "batch", "parameters", "compile s", "first step ms", "step ms", "img/s")
    lines = [row(*titles, "used elsewhere")]
    for r in records:
        lines.append(
            row(
                r["model"],
                r["batch_size"],
                f"{r['num_params']:,}",
                f"{r['compile_seconds']:.1f}",
                f"{r['first_step_ms']:.1f}",
                f"{r['step_time_ms']['median']:.1f}",
                f"{r['images_per_second']:,.0f}",
                "?" if r["used_elsewhere"] is None else f"{r['used_elsewhere']:.0%}",
            )
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measures the networks of the command line, prints their table, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all without one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv[1:])
    try:
        for name in args.models:
            if name not in CONFIGS:
                raise unknown("model", name, CONFIGS)
        if args.rounds < 1 or not 0 < args.seconds < math.inf:
            raise UserError("--rounds needs 1 or more, --seconds more than 0")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.open("a").close()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    records = []
    for name in args.models or CONFIGS:
        records.append(measure(name, load_config(CONFIGS[name]), args.rounds, args.seconds))
        with args.out.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(table(records[-1:]).splitlines()[-1], file=sys.stderr)
        jax.clear_caches()
        gc.collect()
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
