"""What augmentation costs: milliseconds a batch, and their share of a training step of ResNet-18.

    python -m benchmarks.augmentation [LINE ...] [--batch_size B] [--rounds N] [--seconds S]

A compiled loop gathers batches of random images, augments and normalises them; the time of the same
loop without augmentation is taken off, round by round. The share is that time in a training step of
configs/resnet18.py, measured in the same run without augmentation, and that time together. A LINE
is written as in config.augment.ops or config.augment.mix (of which the loss of the second label is
left out); without one those of LINES are measured. A line of JSON for each goes to --out.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import throughput, timing
from benchmarks.idle import processor_seconds, used_elsewhere
from benchmarks.results import RESULTS, load_config
from cifar_jax import augment
from cifar_jax.engine import compile_for_backend
from cifar_jax.errors import UserError
from cifar_jax.runtime.environment import environment

# All that Keras' ImageDataGenerator draws at random, in its order; what the suite's recipes use;
# the policies; the mixes.
LINES = (
    "affine(15, 0.1, 0.1, 0.2, 0.2)|channel_shift(30)|flip|vertical_flip|brightness(0.8, 1.2)",
    "affine(15, 0.1, 0.1)|flip",
    "flip|crop(4)",
    "cutout(16)",
    "random_erasing",
    "randaugment",
    "autoaugment",
    "mixup(0.2)",
    "cutmix(1.0)",
)
OUT = RESULTS / "augmentation.jsonl"
MODEL = "resnet18"
_NUM_BATCHES = 4


def make_loop(line: str, batch_size: int) -> Callable[[int], None]:
    """Returns a function that prepares so many batches on the device and waits for the last.

    Args:
      line: operations or a mix; empty for none.
      batch_size: B.

    Raises:
      UserError: for a line that cannot be parsed.
    """
    mix, ops = None, augment.parse("")
    if augment.is_mix(line):
        mix = augment.parse_mix(line)
    else:
        ops = augment.parse(line)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (_NUM_BATCHES * batch_size, 32, 32, 3), np.uint8)

    def prepare(data, i):
        index = (i * batch_size + jnp.arange(batch_size, dtype=jnp.int32)) % len(data)
        key = jax.random.fold_in(jax.random.key(0), i)
        images = ops(key, data[index], index, i // _NUM_BATCHES)
        if mix is not None:
            images = mix(key, images).images
        return augment.normalize(images, 0.5, 0.25)

    def loop(data, start, count):
        empty = jnp.zeros((batch_size, 32, 32, 3), jnp.float32)
        return jax.lax.fori_loop(start, start + count, lambda i, _: prepare(data, i), empty)

    data, one = jax.device_put(data), np.int32(1)
    program = compile_for_backend(jax.jit(loop).lower(data, one, one))
    start = 0

    def run(count: int) -> None:
        nonlocal start
        jax.block_until_ready(program(data, np.int32(start), np.int32(count)))
        start += count

    return run


def take_turns(
    loops: Sequence[Callable[[int], None]], rounds: int, seconds: float
) -> list[list[float]]:
    """Returns each loop's milliseconds a batch in every round, about so many seconds of each."""
    for run in loops:
        run(1)
    counts = [timing.calibrate(run, seconds) for run in loops]
    ms = [[] for _ in loops]
    for _ in range(rounds):
        for times, run, count in zip(ms, loops, counts, strict=True):
            times.append(1e3 * timing.timed(run, count) / count)
    return ms


def measure(
    lines: Sequence[str], batch_size: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measures the lines and returns a record of each.

    Args:
      lines: operations or mixes.
      batch_size: images of a batch, for the network too.
      rounds: whose median counts.
      seconds: of a round, about.
    """
    settings = load_config(MODEL)
    settings.batch_size = batch_size
    settings.augment.ops = ""
    loops = [make_loop(line, batch_size) for line in ("", *lines)]
    network = throughput.measure(MODEL, settings, rounds * seconds)
    step = network["step_time_ms"]["median"]
    before = processor_seconds()
    nothing, *times = take_turns(loops, rounds, seconds)
    elsewhere = used_elsewhere(before, processor_seconds())
    if elsewhere is not None:
        elsewhere = max(elsewhere, network["used_elsewhere"])
    records = []
    for line, ms in zip(lines, times, strict=True):
        cost = statistics.median(own - without for own, without in zip(ms, nothing, strict=True))
        records.append(
            {
                "augmentation": line,
                "batch_size": batch_size,
                "ms": cost,
                "share_of_step": cost / (step + cost),
                "model": MODEL,
                "dtype": network["dtype"],
                "step_ms": step,
                "rounds_ms": ms,
                "rounds_ms_without": nothing,
                "used_elsewhere": elsewhere,
                **environment(),
            }
        )
    return records


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    first = records[0]
    lines = [
        f"a batch of {first['batch_size']}; {MODEL} without augmentation {first['step_ms']:,.1f} ms"
        f" a step; used elsewhere {first['used_elsewhere'] or 0:.0%}"
    ]
    row = "{:>9} {:>14}  {}".format
    lines.append(row("ms", "share of step", "augmentation"))
    for r in records:
        lines.append(row(f"{r['ms']:.3f}", f"{r['share_of_step']:.3%}", r["augmentation"]))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measures the lines of the command line, prints their table, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.augmentation",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lines", nargs="*", metavar="LINE", help='as in "flip|crop(4)"')
    parser.add_argument("--batch_size", type=int, default=128, metavar="B")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of a round")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    args = parser.parse_args(argv[1:])
    try:
        if args.rounds < 1 or args.batch_size < 1 or not 0 < args.seconds < math.inf:
            raise UserError("--rounds and --batch_size need 1 or more, --seconds more than 0")
        if not all(line.strip() for line in args.lines):
            raise UserError("a LINE needs an operation, as in flip")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a") as file:
            records = measure(args.lines or LINES, args.batch_size, args.rounds, args.seconds)
            file.writelines(json.dumps(record) + "\n" for record in records)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
