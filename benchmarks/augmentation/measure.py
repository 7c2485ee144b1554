"""Times augmentation in a separate loop, and a training step without augmentation."""

import statistics
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.harness import Record, TimedLoop
from benchmarks.idle import background_load, processor_seconds
from benchmarks.results import load_config
from benchmarks.throughput.measure import measure_network
from cifar_jax import augment
from cifar_jax.runtime.compiler import compile_for_backend
from cifar_jax.runtime.environment import environment

# All random operations of Keras's ImageDataGenerator, in its order; the operations of this suite's
# recipes; the policies; and the mixes.
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
MODEL = "resnet18"
_NUM_BATCHES = 4


def make_loop(line: str, batch_size: int) -> TimedLoop:
    """Returns a loop that prepares batches on the device and waits for the last one.

    Args:
      line: Operations or a mix; empty for no augmentation.
      batch_size: The number of images per batch.

    Raises:
      UserError: If the line cannot be parsed.
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

    def run(num_batches: int) -> None:
        nonlocal start
        jax.block_until_ready(program(data, np.int32(start), np.int32(num_batches)))
        start += num_batches

    return run


def time_loops(loops: Sequence[TimedLoop], rounds: int, seconds: float) -> list[list[float]]:
    """Returns the milliseconds per batch of each loop and round; a round takes about `seconds`."""
    for run in loops:
        run(1)
    turns = {
        str(i): partial(harness.seconds_per_step, run, harness.calibrate(run, seconds))
        for i, run in enumerate(loops)
    }
    results = harness.interleave(turns, rounds)
    return [[1e3 * value for value in values] for values in results.values()]


def measure_lines(
    lines: Sequence[str], batch_size: int, rounds: int, seconds: float
) -> list[Record]:
    """Measures augmentations and returns a record for each.

    Args:
      lines: Operations or mixes.
      batch_size: The number of images per batch, also for the network.
      rounds: The number of rounds, whose median is reported.
      seconds: The approximate duration of a round.

    Raises:
      UserError: If a line cannot be parsed.
    """
    settings = load_config(MODEL)
    settings.batch_size = batch_size
    settings.augment.ops = settings.augment.mix = ""
    loops = [make_loop(line, batch_size) for line in ("", *lines)]
    network = measure_network(MODEL, settings, rounds * seconds)
    step = network["step_time_ms"]["median"]
    before = processor_seconds()
    baseline, *times = time_loops(loops, rounds, seconds)
    load = background_load(before, processor_seconds())
    if load is not None:
        load = max(load, network["used_elsewhere"])
    records = []
    for line, ms in zip(lines, times, strict=True):
        cost = statistics.median(a - b for a, b in zip(ms, baseline, strict=True))
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
                "rounds_ms_without": baseline,
                **harness.background(load),
                **environment(),
            }
        )
    return records
