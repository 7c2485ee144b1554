"""Compares the same training step in JAX and in PyTorch, interleaved.

    python -m benchmarks.versus_torch [MODEL[:BATCH[:DTYPE]] ...] [--rounds N] [--out FILE]

Both sides run the forward pass, loss, backward pass and update of one network from the same
weights: in training mode with the network's own dropout, with the same optimiser, without
augmentation, and with the data on the device. The JAX side is the training loop of cifar_jax, so it
also gathers its batches, normalises uint8 images and counts metrics, whereas PyTorch's batches are
prepared in advance. For bfloat16, PyTorch uses autocast. A MODEL without BATCH uses the batch size
of its write-up; "all" selects every network.

PyTorch is first timed in each of SETTINGS. On a CPU these are eager with either memory layout, with
or without a fused optimiser, and with or without huge pages for large arrays; on a GPU they are
eager, compiled, and compiled with autotuning, which takes minutes (use --settings to select some).
The settings that come near the fastest one are then interleaved with JAX; on a CPU, PyTorch's
default setting ("torch") always is. The record's ratio is to the setting with the lowest median,
and a second ratio is to "torch". In a round, all contenders run the same number of steps one after
the other, and ratios are taken within rounds, so that temporary slowdowns of the machine affect
both sides.

On a CPU, each PyTorch contender runs in its own process. JAX has huge pages, as
`python -m cifar_jax.main` does by default; PyTorch has them in one of its settings. The record
holds the peak resident memory of both processes, including compilation.

The machine must be otherwise idle: with one other busy process on two cores, PyTorch's threads
waited for each other 5 to 40 times longer than they computed. The record holds the share of the
cores' time that other processes took; above a few percent its times are meaningless.
"""

import gc
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# By default XLA reserves most of a GPU's memory, which would leave PyTorch too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import harness, torch_models
from benchmarks.harness import RESULTS, Record, Run
from benchmarks.idle import background_load, processor_seconds
from benchmarks.throughput import __main__ as throughput
from benchmarks.torch_models import weights
from benchmarks.versus_torch.subprocess_contender import (
    SubprocessContender,
    peak_bytes,
    reset_peak_bytes,
)
from cifar_jax import augment, engine, experiment, models, optim, step
from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import fetch
from cifar_jax.runtime import compilation_cache
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.huge_pages import restart_with_huge_pages

CASES = ("cnn3:32", "cnn3:128", "resnet18:32")
OUT = RESULTS / "versus_torch.jsonl"
NUM_CLASSES = 100
# With fewer batches the networks would memorise these random images, and gradients would vanish.
NUM_BATCHES = 64
# A turn without --steps has as many steps as PyTorch runs in this time.
SECONDS_PER_TURN = 0.5
# Without --rounds, each contender gets about this time in total, within these numbers of rounds.
SECONDS, MIN_ROUNDS, MAX_ROUNDS = 10.0, 5, 21
# Settings slower than the fastest one by more than this factor in the first measurement are
# dropped.
NEAR = 1.25
# Untimed steps before each turn, because the previous contender may have left threads spinning and
# has filled the caches.
WARM_UP_STEPS = 2


class Setting(NamedTuple):
    """Options with which PyTorch runs.

    Attributes:
      layout: The memory format of images and weights.
      fused: Whether the optimiser is fused.
      huge_pages: Whether large arrays use pages of 2 MiB; has no effect on a GPU.
      compiled: The mode of torch.compile, or None to run eagerly.
    """

    layout: torch.memory_format
    fused: bool
    huge_pages: bool = False
    compiled: str | None = None


# PyTorch with default settings, on a CPU only: on a GPU channels_last is common practice.
DEFAULT = "torch"
SETTINGS = {
    "cpu": {
        "torch": Setting(torch.contiguous_format, False),
        "torch_channels_last": Setting(torch.channels_last, False),
        "torch_fused": Setting(torch.contiguous_format, True),
        "torch_channels_last_fused": Setting(torch.channels_last, True),
        "torch_channels_last_fused_huge": Setting(torch.channels_last, True, True),
    },
    "gpu": {
        "torch_channels_last_fused": Setting(torch.channels_last, True),
        "torch_compiled": Setting(torch.channels_last, True, compiled="reduce-overhead"),
        "torch_autotuned": Setting(torch.channels_last, True, compiled="max-autotune"),
    },
}


def settings_here() -> dict[str, Setting]:
    """Returns the SETTINGS for the current device."""
    return SETTINGS["cpu" if jax.default_backend() == "cpu" else "gpu"]


def make_optimizers(model: str) -> tuple[str, Any, Callable[..., torch.optim.Optimizer]]:
    """Returns an optimiser as its description, an optax transformation and a PyTorch factory."""
    if model.startswith("resnet"):
        options = dict(momentum=0.9, nesterov=True, weight_decay=5e-4)
        optimizer = optim.create("sgd", 0.1, **options)
        make_torch_optimizer = partial(torch.optim.SGD, lr=0.1, **options)
        return "sgd 0.1, Nesterov 0.9, decay 5e-4", optimizer, make_torch_optimizer
    return "adam 1e-3", optim.create("adam", 1e-3), partial(torch.optim.Adam, lr=1e-3)


def make_jax(
    model: str, optimizer, images: np.ndarray, labels: np.ndarray, batch_size: int, dtype: str
) -> tuple[Run, step.TrainState, float]:
    """Creates the JAX contender.

    Args:
      model: The name of the network.
      optimizer: An optax gradient transformation.
      images: [N, 32, 32, 3] uint8.
      labels: [N] int32.
      batch_size: A divisor of N.
      dtype: The dtype of the computation.

    Returns:
      The contender, its state before the first step, and its compilation time in seconds.
    """

    def build(rngs):
        return models.create(model, NUM_CLASSES, rngs, dtype=jnp.dtype(dtype))

    networks = step.split_networks(build)
    train_step = step.make_train_step(
        networks.train,
        optimizer,
        augment=augment.parse(""),
        preprocess=partial(augment.normalize, mean=0.5, std=0.25, dtype=jnp.dtype(dtype)),
    )
    runner = engine.create(
        lambda axis_name: train_step,
        partial(step.init, build, optimizer),
        images,
        labels,
        batch_size=batch_size,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
        cuda_graph=True,
    )
    state, metrics = runner.init(), runner.no_metrics()
    plan = runner.plan(state, 0)

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = runner.run(state, metrics, plan, num_steps)
        check_loss(fetch(metrics)["loss"])

    return run, runner.init(), runner.compile_seconds


def make_torch(
    model: str,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    state: step.TrainState,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    dtype: str,
    setting: Setting,
    device: str | None = None,
) -> Run:
    """Creates a PyTorch contender.

    Args:
      model: The name of the network.
      make_optimizer: Creates the optimiser from the parameters and the argument `fused`.
      state: The state from which the weights and running statistics are copied.
      images: [N, 32, 32, 3] uint8.
      labels: [N] int32.
      batch_size: A divisor of N.
      dtype: "float32", or "bfloat16" for autocast.
      setting: The options with which PyTorch runs.
      device: "cpu" or "cuda"; JAX's default device if None.
    """
    device = device or ("cpu" if jax.default_backend() == "cpu" else "cuda")
    # Use TF32 as XLA does for float32 on GPUs.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of running eagerly
    module = torch_models.create(model, NUM_CLASSES)
    weights.transplant(state.params, state.batch_stats, module)
    module = module.to(device, memory_format=setting.layout).train()
    optimizer = make_optimizer(module.parameters(), fused=setting.fused)
    x = (torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    x = x.contiguous(memory_format=setting.layout).split(batch_size)
    y = torch.tensor(labels, device=device).long().split(batch_size)

    def compute_loss(images, labels):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = module(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    if setting.compiled:
        # All cases share the code of compute_loss. Without a reset, the second network would be
        # compiled for dynamic batch sizes, and the ninth would not be compiled at all.
        torch.compiler.reset()
        compute_loss = torch.compile(compute_loss, mode=setting.compiled, dynamic=False)
    num_done = 0

    def run(num_steps: int) -> None:
        nonlocal num_done
        for i in range(num_done, num_done + num_steps):
            optimizer.zero_grad()
            loss = compute_loss(x[i % len(x)], y[i % len(y)])
            loss.backward()
            optimizer.step()
        num_done += num_steps
        check_loss(loss.item())

    return run


def check_loss(loss: float) -> None:
    """Checks that a loss is finite, since steps with other values may take a different time.

    Raises:
      RuntimeError: If the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the times are meaningless")


def time_contenders(
    contenders: dict[str, Run], num_rounds: int, num_steps: int
) -> dict[str, list[float]]:
    """Returns the milliseconds per step of every contender, one value per round."""
    turns = {
        name: partial(harness.seconds_per_step, run, num_steps, WARM_UP_STEPS)
        for name, run in contenders.items()
    }
    results = harness.interleave(turns, num_rounds)
    return {name: [1e3 * value for value in values] for name, values in results.items()}


def comparison(ms: dict[str, Sequence[float]]) -> Record:
    """Summarises milliseconds per step and round, {"jax" or one of SETTINGS: [rounds]}.

    Returns:
      The record's fields `jax_ms` and `torch_ms`, the medians; `torch_setting`, the setting with
      the lowest median; and `ratio`, the median, min and max of jax / torch over rounds.
      `default_ms` and `ratio_to_default` are the same for PyTorch's default setting, or None if it
      did not run.
    """
    medians, setting = harness.compare(ms, "jax")
    return {
        "jax_ms": medians["jax"],
        "torch_ms": medians[setting],
        "torch_setting": setting,
        "ratio": harness.ratio(ms["jax"], ms[setting]),
        "default_ms": medians.get(DEFAULT),
        "ratio_to_default": harness.ratio(ms["jax"], ms[DEFAULT]) if DEFAULT in ms else None,
    }


def compare_network(
    model: str,
    batch_size: int,
    dtype: str,
    num_rounds: int | None = None,
    num_steps: int | None = None,
    settings: Sequence[str] = (),
) -> Record:
    """Times one network in JAX and PyTorch and returns its record.

    Args:
      model: The name of the network.
      batch_size: The number of images per step.
      dtype: "float32" or "bfloat16".
      num_rounds: The number of rounds; if None, as many as fit into SECONDS.
      num_steps: The number of steps per turn; if None, as many as PyTorch runs in SECONDS_PER_TURN.
      settings: The settings of PyTorch, names from SETTINGS; all for this device if empty.

    Raises:
      RuntimeError: If PyTorch fails in every setting, or a loss becomes NaN or infinite.
    """
    reset_peak_bytes()
    rng = np.random.default_rng(0)
    num_images = batch_size * NUM_BATCHES
    images = rng.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_images, np.int32)
    description, optimizer, make_optimizer = make_optimizers(model)
    run, state, compile_seconds = make_jax(model, optimizer, images, labels, batch_size, dtype)
    state = jax.device_get(state.replace(key=None))  # only the weights, on the host
    make = partial(_make_contender, model, make_optimizer, state, images, labels, batch_size, dtype)
    contenders, first_ms = _try_settings(make, settings or settings_here(), num_steps)
    run(WARM_UP_STEPS)
    fastest_ms = min(ms for ms in first_ms.values() if ms is not None)
    num_steps = num_steps or max(1, round(1e3 * SECONDS_PER_TURN / fastest_ms))
    wanted = round(1e3 * SECONDS / (fastest_ms * num_steps))
    num_rounds = num_rounds or min(max(wanted, MIN_ROUNDS), MAX_ROUNDS)
    before = _processor_seconds(contenders.values())
    ms = time_contenders({"jax": run, **contenders}, num_rounds, num_steps)
    after = _processor_seconds(contenders.values())
    compared = comparison(ms)
    peak = None
    if jax.default_backend() == "cpu":
        peak = {"jax": peak_bytes(), "torch": contenders[compared["torch_setting"]].peak_bytes}
    _close(contenders.values())
    record = environment()
    record["versions"]["torch"] = torch.__version__
    return {
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "optimizer": description,
        "rounds": num_rounds,
        "steps_per_round": num_steps,
        **compared,
        "peak_memory_bytes": peak,
        "compile_seconds": compile_seconds,
        "ms_per_step": ms,
        "ms_of_settings": first_ms,
        "used_elsewhere": background_load(before, after),
        "threads": {"cores": len(os.sched_getaffinity(0)), "torch": torch.get_num_threads()},
        **record,
    }


def _make_contender(*args: Any) -> Run:
    """Calls `make_torch`, in a new process if on a CPU; the last argument is the setting."""
    if jax.default_backend() != "cpu":
        return make_torch(*args)
    return SubprocessContender(
        make_torch,
        *args,
        "cpu",
        num_threads=torch.get_num_threads(),
        huge_pages=args[-1].huge_pages,
    )


def _try_settings(
    make: Callable[[Setting], Run], names: Iterable[str], num_steps: int | None
) -> tuple[dict[str, Run], dict[str, float | None]]:
    """Times PyTorch once in each setting and keeps those that come near the fastest.

    Args:
      make: Creates the contender for a setting.
      names: The names of the settings.
      num_steps: The number of steps, or None to choose it by SECONDS_PER_TURN.

    Returns:
      The contenders to compare, by setting, and the milliseconds per step of every setting, None
      for those that failed.

    Raises:
      RuntimeError: If every setting fails.
    """
    contenders, first_ms = {}, {}
    for name in names:
        setting = settings_here()[name]
        try:
            contender = make(setting)
            # A compiled contender records CUDA graphs in its first steps.
            contender(5 if setting.compiled else WARM_UP_STEPS)
            count = num_steps or harness.calibrate(contender, SECONDS_PER_TURN / 2)
            first_ms[name] = 1e3 * harness.seconds_per_step(contender, count)
        except Exception:  # for example because there is no compiler; the other settings remain
            traceback.print_exc()
            first_ms[name] = None
            continue
        contenders[name] = contender
        limit = NEAR * min(ms for ms in first_ms.values() if ms is not None)
        slow = [name for name in contenders if first_ms[name] > limit and name != DEFAULT]
        _close([contenders.pop(name) for name in slow])
        del contender  # frees the memory of a contender that was dropped
        gc.collect()
    if not contenders:
        raise RuntimeError("PyTorch failed in every setting")
    return contenders, first_ms


def _processor_seconds(contenders: Iterable[Run]) -> tuple[float, ...]:
    """Returns idle.processor_seconds, counting the contenders' processes as part of this one."""
    seconds = [run.processor_seconds for run in contenders if isinstance(run, SubprocessContender)]
    reading = processor_seconds()
    return reading and (reading[0] + sum(seconds), *reading[1:])


def _close(contenders: Iterable[Run]) -> None:
    for run in contenders:
        if isinstance(run, SubprocessContender):
            run.close()


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<16} {:>5} {:<8} {:>9} {:>10}  {:<25} {:>11} {:<16} {:>9} {:>15}".format
    titles = ("model", "batch", "dtype", "JAX ms", "PyTorch ms", "", "JAX/PyTorch", "", "compile s")
    titles += ("background load",)
    lines = [row(*titles)]
    for r in records:
        ratio, load = r["ratio"], r["used_elsewhere"]
        lines.append(
            row(
                r["model"],
                r["batch_size"],
                r["dtype"],
                f"{r['jax_ms']:.2f}",
                f"{r['torch_ms']:.2f}",
                r["torch_setting"],
                f"{ratio['median']:.2f}",
                f"({ratio['min']:.2f} to {ratio['max']:.2f})",
                f"{r['compile_seconds']:.1f}",
                "?" if load is None else f"{load:.0%}",
            )
        )
    return "\n".join(lines)


def _is_comparable(name: str) -> bool:
    """Returns whether a case of benchmarks.throughput is a network with a PyTorch version."""
    return name in models.MODELS and torch_models.find(name) is not None


def parse_case(text: str) -> tuple[str, int, str]:
    """Returns the network, batch size and dtype of a case such as "cnn3:128:bfloat16".

    Raises:
      UserError: If the network or the dtype is unknown, or the batch size is not a positive
        integer.
    """
    name, settings = throughput.parse_case(text)
    if not _is_comparable(name):
        raise UserError(
            f"{name!r} cannot be compared: benchmarks/torch_models has no PyTorch version of it"
        )
    return name, settings.batch_size, experiment.resolved(settings).dtype


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the cases on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("versus_torch", __doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="MODEL[:BATCH[:DTYPE]]",
        default=list(CASES),
        help=f'networks to compare, or "all" (default: {" ".join(CASES)})',
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="number of rounds (default: about 10 seconds)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps per round (default: about half a second)"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="SETTING",
        help=f"settings of PyTorch to try: {', '.join(settings_here())} (default: all)",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FILE", help="file for the records"
    )
    args = parser.parse_args(argv)
    if args.cases == ["all"]:
        args.cases = [name for name in throughput.CONFIGS if _is_comparable(name)]
    try:
        cases = [parse_case(text) for text in args.cases]
        for name in args.settings or ():
            if name not in settings_here():
                raise unknown("setting", name, settings_here())
        if any(number is not None and number < 1 for number in (args.rounds, args.steps)):
            raise UserError("--rounds and --steps need whole numbers above 0")
        output = harness.open_output(args.out)
    except (UserError, OSError) as error:
        parser.error(str(error))

    compilation_cache.turn_off()
    settings = args.settings or ()
    with output:
        return harness.run_cases(
            [
                (
                    ":".join(map(str, case)),
                    partial(compare_network, *case, args.rounds, args.steps, settings),
                )
                for case in cases
            ],
            output,
            table,
        )


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main())
