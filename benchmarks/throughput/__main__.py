"""Measures the time to the first training step, and the time per step, of each network.

    python -m benchmarks.throughput [MODEL[:BATCH[:DTYPE]] ...] [--seconds S] [--out FILE]

Every network trains with the recipe of one experiment (CONFIGS), augmentation included, on random
images. The recipe's batch size and dtype are used unless given on the command line. "all" selects
every network. Without a MODEL, all networks are timed on an accelerator, and those in SMALL on a
CPU.

The reported quantities are:
  compilation: The time for tracing, lowering and compiling the training program.
  first step: The first call, which runs one step.
  step: The median over rounds, where a round is one call of several steps; p95 is the 95th
    percentile over rounds.
  FLOP/s: The FLOPs of a step before compilation according to XLA's cost analysis, with every
    convolution computed as a direct sum (most take fewer operations on a CPU). The peak is that of
    a large matrix product in the same dtype, measured in the same run.
  input: The share of a step that is saved without gathering and augmenting, measured by
    interleaving with a program that trains on one fixed batch.
  call: The time that a call of one step takes beyond the step itself. Training makes calls that
    last about a second.

The record also holds the memory that the compiled program needs, including the data set. One line
of JSON per network is appended to FILE. It includes the share of the cores' time that other
processes took during the measurement; above a few percent the times are meaningless.
"""

import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import harness, peak
from benchmarks.harness import RESULTS, Record, Run
from benchmarks.idle import background_load, processor_seconds
from benchmarks.results import load_config
from cifar_jax import data, experiment
from cifar_jax.engine import batch_sharding, compile_for_backend, gather
from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.ops.conv import stock_convolutions
from cifar_jax.runtime import compilation_cache
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.huge_pages import restart_with_huge_pages

# The experiment whose batch size, optimiser and augmentation each network is timed with.
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
    "resnet18 reference": "resnet18",
    "resnet34": "hybrid/resnet34",
    "resnet50": "callbacks/resnet50",
    "school": "callbacks/school",
    "simple": "callbacks/simple",
    "simple_initial": "callbacks/simple_initial",
    "stacked3": "callbacks/stacked3",
    "vgg16": "coarse/vgg16_transfer",
}
# The networks timed by default on a CPU, which take a minute or two.
SMALL = ("cnn2", "cnn3", "cnn4", "cnn_deep", "cnn_small", "simple_initial", "stacked3")
OUT = RESULTS / "throughput.jsonl"
NUM_IMAGES = 50_000


def measure_network(
    name: str, settings: ConfigDict, seconds: float, with_input_share: bool = False
) -> Record:
    """Measures one network and returns its record.

    Args:
      name: The name of the network in the record.
      settings: The config that it trains with.
      seconds: The approximate total time of all rounds. At least three rounds are run.
      with_input_share: Whether to measure the input's share of a step, which takes a second program
        and doubles the time.

    Raises:
      RuntimeError: If the loss becomes NaN or infinite.
    """
    settings = experiment.resolved(settings)
    settings.data.val_fraction = 0.0
    dataset = random_data(settings)
    start = time.perf_counter()
    engine = experiment.create(settings, dataset).engine
    create_seconds = time.perf_counter() - start
    state, metrics = engine.init(), engine.no_metrics()
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    plan = jax.block_until_ready(engine.plan(state, 0))

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = jax.block_until_ready(engine.run(state, metrics, plan, num_steps))

    first_step = harness.timed(run, 1)
    runs = {"training": run}
    if with_input_share:
        runs["without input"] = loop_without_input(settings, dataset)
        runs["without input"](1)
    before = processor_seconds()
    num_rounds, num_steps = harness.plan_rounds(run, seconds)
    turns = {key: partial(harness.seconds_per_step, loop, num_steps) for key, loop in runs.items()}
    results = harness.interleave(turns, num_rounds)
    after = processor_seconds()
    times = results["training"]
    single_steps = [harness.timed(run, 1) for _ in range(3)]
    loss = fetch(metrics)["loss"]
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the times are meaningless")
    step_time = float(np.median(times))
    flops = count_flops(settings, dataset)
    num_devices = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    data_sheet = peak.data_sheet(settings.dtype)
    input_share = None
    if with_input_share:
        input_share = 1 - float(np.median(results["without input"])) / step_time
    return {
        "model": name,
        "config": settings.experiment,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "num_params": num_params,
        "compile_seconds": engine.compile_seconds,
        "create_seconds": create_seconds,
        "first_step_ms": 1e3 * first_step,
        "step_time_ms": {
            "median": 1e3 * step_time,
            "p95": 1e3 * float(np.percentile(times, 95)),
            "min": 1e3 * min(times),
            "max": 1e3 * max(times),
        },
        "rounds": len(times),
        "steps_per_round": num_steps,
        "images_per_second": settings.batch_size / step_time,
        "input_share": input_share,
        "call_overhead_ms": 1e3 * max(min(single_steps) - step_time, 0.0),
        "flops_per_step": flops,
        "flops_per_second": flops and flops / step_time,
        "peak_flops_per_second": {
            "measured": peak.measured(settings.dtype) * num_devices,
            "data_sheet": data_sheet and data_sheet * num_devices,
        },
        "program_bytes": engine.program_bytes,
        "used_elsewhere": background_load(before, after),
        **environment(),
    }


def loop_without_input(settings: ConfigDict, dataset: data.Dataset) -> Run:
    """Returns a training loop on one fixed batch, which is neither gathered nor augmented."""
    settings = settings.copy_and_resolve_references()
    settings.augment.ops = settings.augment.mix = ""
    parts = experiment.make_parts(settings, dataset)
    train_step, mesh = parts.make_train_step(None), experiment.make_mesh()
    replicated = NamedSharding(mesh, P())
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    batch = gather(*dataset.train, order, 0, settings.batch_size)
    batch = jax.device_put(batch, batch_sharding(batch, mesh))
    state = jax.jit(parts.init, out_shardings=replicated)(np.uint32(0))
    metrics = jax.device_put(Metrics.empty(), replicated)

    def steps(state, metrics, batch, learning_rate, count):
        def one(_, carry):
            # Without the barrier XLA would hoist computations that depend only on the batch.
            state, metrics, carried_batch = jax.lax.optimization_barrier((*carry, batch))
            state, new = train_step(state, carried_batch, learning_rate)
            return state, metrics.merge(new)

        return jax.lax.fori_loop(0, count, one, (state, metrics))

    def arguments(count: int):
        return state, metrics, batch, np.float32(1e-3), np.int32(count)

    program = compile_for_backend(jax.jit(steps, donate_argnums=0).lower(*arguments(1)))

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = jax.block_until_ready(program(*arguments(num_steps)))

    return run


def count_flops(settings: ConfigDict, dataset: data.Dataset) -> float | None:
    """Returns the FLOPs of one training step without augmentation, or None if XLA reports none.

    They are counted before compilation and for a CPU, since CUDA's runtime has no cost analysis.
    Reference convolutions are used, so that padding does not add to the count and algorithms with
    fewer multiplications do not lower it.
    """
    settings = settings.copy_and_resolve_references()
    settings.augment.ops = settings.augment.mix = ""
    parts = experiment.make_parts(settings, dataset)
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    try:
        with stock_convolutions(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            state = jax.eval_shape(parts.init, np.uint32(0))
            batch = jax.eval_shape(lambda: gather(*dataset.train, order, 0, settings.batch_size))
            step = jax.jit(parts.make_train_step(None)).lower(state, batch, np.float32(0))
            return (step.cost_analysis() or {}).get("flops")
    except (RuntimeError, NotImplementedError):  # no CPU backend next to the accelerator
        return None


def random_data(settings: ConfigDict) -> data.Dataset:
    """Returns random images and labels with as many images and classes as the config's data set.

    Fewer images would fit into the processor's caches, and the network would memorise them.
    """
    num_classes = data.num_classes(settings.data.name, settings.data.label)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), np.uint8)
    split = data.Split(images, rng.integers(0, num_classes, NUM_IMAGES, np.int32))
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


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<18} {:>5} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>6} {:>8} {:>9}".format
    lines = [
        row(
            *("model", "batch", "dtype", "compile", "1st step", "step", "p95", "img/s", "GFLOP/s"),
            *("peak", "input", "call", "bg load"),
        )
    ]
    for r in records:
        achieved, ms = r["flops_per_second"], r["step_time_ms"]
        lines.append(
            row(
                r["model"],
                r["batch_size"],
                r["dtype"],
                f"{r['compile_seconds']:.1f} s",
                f"{r['first_step_ms']:.0f} ms",
                f"{ms['median']:.2f} ms",
                f"{ms['p95']:.2f} ms",
                f"{r['images_per_second']:,.0f}",
                "?" if achieved is None else f"{achieved / 1e9:,.0f}",
                share(achieved and achieved / r["peak_flops_per_second"]["measured"]),
                share(r["input_share"]),
                f"{r['call_overhead_ms']:.2f} ms",
                share(r["used_elsewhere"]),
            )
        )
    return "\n".join(lines)


def share(value: float | None) -> str:
    """Formats a fraction in percent; unknown values are shown as "?"."""
    return "?" if value is None else f"{value:.1%}"


def parse_case(text: str) -> tuple[str, ConfigDict]:
    """Parses a case into the name of its network and the config that it is timed with.

    Args:
      text: A case such as "resnet18", "resnet18:512" or "resnet18:512:bfloat16".

    Raises:
      UserError: If the network or the dtype is unknown, or the batch size is not a positive
        integer.
    """
    name, *rest = text.split(":")
    if name not in CONFIGS:
        raise unknown("model", name, CONFIGS)
    settings = load_config(CONFIGS[name])
    if len(rest) > 2 or (rest and not (rest[0].isdecimal() and int(rest[0]))):
        raise UserError(f"{text!r} is not MODEL, MODEL:BATCH or MODEL:BATCH:DTYPE")
    if rest:
        settings.batch_size = int(rest[0])
    if len(rest) == 2:
        if rest[1] not in experiment.DTYPES:
            raise unknown("dtype", rest[1], experiment.DTYPES)
        settings.dtype = rest[1]
    return name, settings


def main(argv: Sequence[str]) -> int:
    """Measures the networks on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("throughput", __doc__, allow_abbrev=False)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL[:BATCH[:DTYPE]]", help='networks to time, or "all"'
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="approximate total time of the rounds of a network (default: 3)",
    )
    parser.add_argument(
        "--no_input_share", action="store_true", help="do not measure the input's share of a step"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="file for the records")
    args = parser.parse_args(argv[1:])
    names = args.models or (SMALL if jax.default_backend() == "cpu" else ["all"])
    try:
        cases = [parse_case(name) for name in (CONFIGS if list(names) == ["all"] else names)]
        if not 0 < args.seconds < math.inf:
            raise UserError("--seconds needs more than 0")
        output = harness.open_output(args.out)
    except (UserError, OSError) as error:
        return harness.reject(error)
    compilation_cache.turn_off()
    with output:
        return harness.run_cases(
            [
                (name, partial(measure_network, name, cfg, args.seconds, not args.no_input_share))
                for name, cfg in cases
            ],
            output,
            table,
        )


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main(sys.argv))
