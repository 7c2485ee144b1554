"""Times each network: to the first training step, and from step to step.

    python -m benchmarks.throughput [MODEL[:BATCH[:DTYPE]] ...] [--seconds S] [--out FILE]

Every network trains by the recipe of one experiment (CONFIGS), augmentation and all, on random
images, with that recipe's batch and dtype unless others are named; "all" stands for every network.
Without a MODEL these are all on an accelerator and those of SMALL on a CPU.

Compilation is tracing, lowering and compiling the training program; the first step is the first
call, of one step. A round is a call of several steps, waited for; the step time is the median
round's. FLOPs are those of XLA's cost analysis of the program before compilation, the peak is that
of a large product of matrices in the same dtype, measured in the same run. The input's share is
what a step saves without gathering and augmenting: its batch lies ready. Dispatch is the host's
time to start one call. Memory is what the compiled program needs, data set included.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import peak
from benchmarks.idle import processor_seconds, used_elsewhere
from benchmarks.results import RESULTS, load_config
from cifar_jax import compilation_cache, data, experiment
from cifar_jax.engine import AXIS, Engine, compile_for_backend, gather
from cifar_jax.environment import environment, peak_memory_bytes
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
# What a CPU times when asked for nothing in particular: a minute or two.
SMALL = ("cnn2", "cnn3", "cnn4", "cnn_deep", "cnn_small", "simple_initial", "stacked3")
OUT = RESULTS / "throughput.jsonl"
NUM_BATCHES = 4
_MOST_ROUNDS = 20


def measure(name: str, settings: ConfigDict, seconds: float) -> dict[str, Any]:
    """Measures one network and returns its record.

    Args:
      name: of the network, for the record.
      settings: the config that it trains by.
      seconds: of all rounds together, about; at least three rounds of a step are taken.
    """
    settings = experiment.resolved(settings)
    settings.data.val_fraction = 0.0
    dataset = random_data(settings)
    start = time.perf_counter()
    engine = experiment.create(settings, dataset).engine
    create_seconds = time.perf_counter() - start
    state, metrics = engine.init(), engine.no_metrics()
    plan = jax.block_until_ready(engine.plan(state, 0))

    def call(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = engine.run(state, metrics, plan, num_steps)

    def run(num_steps: int) -> float:
        start = time.perf_counter()
        call(num_steps)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - start

    first_step = run(1)
    before = processor_seconds()
    times, num_steps = rounds(run, seconds)
    after = processor_seconds()
    dispatch = min(_dispatch(call, lambda: (state, metrics)) for _ in range(3))
    step_time = float(np.median(times))
    flops = _flops(engine)
    return {
        "model": name,
        "config": settings.experiment,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "num_params": sum(x.size for x in jax.tree.leaves(state.params)),
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
        "dispatch_ms": 1e3 * dispatch,
        "flops_per_step": flops,
        "flops_per_second": flops and flops / step_time,
        "peak_flops_per_second": {
            "measured": peak.measured(settings.dtype) * len(jax.local_devices()),
            "data_sheet": peak.data_sheet(settings.dtype),
        },
        "program_bytes": _program_bytes(engine),
        "peak_memory_bytes": peak_memory_bytes(),
        "used_elsewhere": used_elsewhere(before, after),
        **environment(),
    }


def rounds(run: Callable[[int], float], seconds: float) -> tuple[list[float], int]:
    """Returns the seconds per step of each round, and the steps of a round.

    Args:
      run: takes so many steps, waits for them, and returns the seconds.
      seconds: of all rounds together, about.
    """
    once = run(1)
    num_steps = max(1, round(seconds / _MOST_ROUNDS / once))
    num_rounds = min(max(round(seconds / (num_steps * once)), 3), _MOST_ROUNDS)
    return [run(num_steps) / num_steps for _ in range(num_rounds)], num_steps


def measure_without_input(settings: ConfigDict, seconds: float) -> float:
    """Returns the median seconds of a step whose batch lies ready, neither gathered nor augmented.

    The arguments are those of `measure`.
    """
    settings = experiment.resolved(settings)
    settings.data.val_fraction, settings.augment.ops, settings.augment.mix = 0.0, "", ""
    dataset = random_data(settings)
    parts = experiment.make_parts(settings, dataset)
    train_step, mesh = parts.make_train_step(None), experiment.make_mesh()
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    batch = gather(*dataset.train, order, 0, settings.batch_size)
    batch = jax.device_put(batch, NamedSharding(mesh, P(AXIS)))
    state = jax.jit(parts.init, out_shardings=NamedSharding(mesh, P()))(np.uint32(0))

    def steps(state, batch, rate, count):
        body = lambda _, state: train_step(state, batch, rate)[0]  # noqa: E731
        return jax.lax.fori_loop(0, count, body, state)

    def arguments(count: int):
        return state, batch, np.float32(1e-3), np.int32(count)

    program = compile_for_backend(jax.jit(steps, donate_argnums=0).lower(*arguments(1)))

    def run(num_steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        state = jax.block_until_ready(program(*arguments(num_steps)))
        return time.perf_counter() - start

    run(1)
    return float(np.median(rounds(run, seconds)[0]))


def _dispatch(call: Callable[[int], None], result: Callable[[], Any]) -> float:
    """Returns the seconds until a call of one step has been started."""
    start = time.perf_counter()
    call(1)
    seconds = time.perf_counter() - start
    jax.block_until_ready(result())
    return seconds


def _flops(engine: Engine) -> float | None:
    """Returns the operations of one step; of the program's loop XLA counts one turn."""
    return (engine.lowered.cost_analysis() or {}).get("flops")


def _program_bytes(engine: Engine) -> int | None:
    """Returns what arguments, results and temporary arrays take on a device, if XLA says it."""
    memory = engine.program.memory_analysis()
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


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
    row = "{:<18} {:>5} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>6} {:>9}".format
    lines = [
        row(
            *("model", "batch", "dtype", "compile", "1st step", "step", "p95", "img/s", "GFLOP/s"),
            *("peak", "input", "elsewhere"),
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
            record = measure(name, settings, args.seconds)
            record["input_share"] = None
            if not args.no_input_share:
                without = 1e3 * measure_without_input(settings, args.seconds)
                record["input_share"] = 1 - without / record["step_time_ms"]["median"]
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
    sys.exit(main(sys.argv))
