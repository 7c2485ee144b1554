"""Times each network: to the first training step, and from step to step.

    python -m benchmarks.throughput [MODEL[:BATCH[:DTYPE]] ...] [--seconds S] [--out FILE]

Every network trains by the recipe of one experiment (CONFIGS), augmentation and all, on random
images, with that recipe's batch and dtype unless others are named; "all" stands for every network.
Without a MODEL these are all on an accelerator and those of SMALL on a CPU.

Compilation is tracing, lowering and compiling the training program; the first step is the first
call, of one step. A round is a call of several steps, waited for; the step time is the median
round's, p95 the 95th percentile of the rounds. FLOPs are those of XLA's cost analysis of a step
before compilation, every convolution by its direct sum (on a CPU most take fewer); the peak is that
of a large product of matrices in the same dtype, measured in the same run. The input's share is
what a step saves without gathering and augmenting: with a batch that lies ready, in turns. A call's
overhead is what a call of one step takes beyond the step; training makes calls of a second. Memory
is what the compiled program needs, data set included.

A line of JSON for each network goes to FILE, with the share of the cores' time that others took
meanwhile: above a few percent its times mean nothing.
"""

import argparse
import gc
import json
import math
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import peak, timing
from benchmarks.idle import processor_seconds, used_elsewhere
from benchmarks.results import RESULTS, load_config
from cifar_jax import data, experiment
from cifar_jax.engine import batch_sharding, compile_for_backend, gather
from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.ops.conv import stock_convolutions
from cifar_jax.runtime import compilation_cache
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.huge_pages import restart_with_huge_pages

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
    "resnet18 reference": "resnet18",
    "resnet34": "hybrid/resnet34",
    "resnet50": "callbacks/resnet50",
    "school": "callbacks/school",
    "simple": "callbacks/simple",
    "simple_initial": "callbacks/simple_initial",
    "stacked3": "callbacks/stacked3",
    "vgg16": "coarse/vgg16_transfer",
}
# What a CPU times when asked for nothing in particular: a minute or two.
SMALL = ("cnn2", "cnn3", "cnn4", "cnn_deep", "cnn_small", "simple_initial", "stacked3")
OUT = RESULTS / "throughput.jsonl"
NUM_IMAGES = 50_000


def measure(
    name: str, settings: ConfigDict, seconds: float, with_input_share: bool = False
) -> dict[str, Any]:
    """Measures one network and returns its record.

    Args:
      name: of the network, for the record.
      settings: the config that it trains by.
      seconds: of all rounds together, about; at least three rounds of a step are taken.
      with_input_share: whether to measure that, which takes a second program and as long again.
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

    first_step = timing.timed(run, 1)
    runs = [run, loop_without_input(settings, dataset)] if with_input_share else [run]
    for other in runs[1:]:
        other(1)
    before = processor_seconds()
    (times, *without), num_steps = timing.take_turns(runs, seconds)
    after = processor_seconds()
    single = [timing.timed(run, 1) for _ in range(3)]
    loss = fetch(metrics)["loss"]
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the times would mean nothing")
    step_time = float(np.median(times))
    flops = count_flops(settings, dataset)
    num_devices = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    data_sheet = peak.data_sheet(settings.dtype)
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
        "input_share": 1 - float(np.median(without[0])) / step_time if without else None,
        "call_overhead_ms": 1e3 * max(min(single) - step_time, 0.0),
        "flops_per_step": flops,
        "flops_per_second": flops and flops / step_time,
        "peak_flops_per_second": {
            "measured": peak.measured(settings.dtype) * num_devices,
            "data_sheet": data_sheet and data_sheet * num_devices,
        },
        "program_bytes": engine.program_bytes,
        "used_elsewhere": used_elsewhere(before, after),
        **environment(),
    }


def loop_without_input(settings: ConfigDict, dataset: data.Dataset) -> timing.Run:
    """Returns the training loop with one batch that lies ready, neither gathered nor augmented."""
    settings = settings.copy_and_resolve_references()
    settings.augment.ops = settings.augment.mix = ""
    parts = experiment.make_parts(settings, dataset)
    train_step, mesh = parts.make_train_step(None), experiment.make_mesh()
    everywhere = NamedSharding(mesh, P())
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    batch = gather(*dataset.train, order, 0, settings.batch_size)
    batch = jax.device_put(batch, batch_sharding(batch, mesh))
    state = jax.jit(parts.init, out_shardings=everywhere)(np.uint32(0))
    metrics = jax.device_put(Metrics.empty(), everywhere)

    def steps(state, metrics, batch, rate, count):
        def one(_, carry):
            # Or XLA would take what depends on the batch alone out of the loop.
            state, metrics, ready = jax.lax.optimization_barrier((*carry, batch))
            state, new = train_step(state, ready, rate)
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
    """Returns the operations of one step without augmentation, None where XLA does not say.

    They are counted before compilation, as for a CPU, for CUDA's runtime has no such analysis, and
    with stock convolutions: padding is no work, and fewer multiplications are no less of it.
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
    except (RuntimeError, NotImplementedError):  # no CPU beside the accelerator
        return None


def random_data(settings) -> data.Dataset:
    """Returns noise with as many images and classes as the config's data have.

    Fewer would lie in the cache, and be learnt by heart.
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


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    row = "{:<18} {:>5} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>6} {:>8} {:>9}".format
    lines = [
        row(
            *("model", "batch", "dtype", "compile", "1st step", "step", "p95", "img/s", "GFLOP/s"),
            *("peak", "input", "call", "elsewhere"),
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


def report_failed(names: Sequence[str]) -> int:
    """Names what could not be measured, if anything; returns the exit code."""
    if names:
        print(f"failed, see above: {', '.join(names)}", file=sys.stderr)
    return 1 if names else 0


def share(value: float | None) -> str:
    """Returns a share in percent, for people."""
    return "?" if value is None else f"{value:.1%}"


def parse_case(text: str) -> tuple[str, ConfigDict]:
    """Returns the name of a network and the config that it is timed with.

    Args:
      text: "resnet18", "resnet18:512" or "resnet18:512:bfloat16".

    Raises:
      UserError: for an unknown network or dtype, or a batch size that is no number above 0.
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
    """Measures the networks of the command line, prints their table, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL[:BATCH[:DTYPE]]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps for each network")
    parser.add_argument("--no_input_share", action="store_true", help="one program less to compile")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv[1:])
    names = args.models or (SMALL if jax.default_backend() == "cpu" else ["all"])
    try:
        cases = [parse_case(name) for name in (CONFIGS if list(names) == ["all"] else names)]
        if not 0 < args.seconds < math.inf:
            raise UserError("--seconds needs more than 0")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.open("a").close()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    compilation_cache.turn_off()
    records, failed = [], []
    for name, settings in cases:
        try:
            record = measure(name, settings, args.seconds, not args.no_input_share)
        except Exception:  # one network's trouble, say its memory, is not the others'
            traceback.print_exc()
            failed.append(name)
        else:
            records.append(record)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(table(records[-1:]).splitlines()[-1], file=sys.stderr)
        jax.clear_caches()
        gc.collect()
    print(table(records))
    return report_failed(failed)


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main(sys.argv))
