"""The same training step in JAX and in PyTorch, in turns within one process, on the CPU.

    python -m benchmarks.versus_torch [MODEL[:BATCH] ...] [--rounds N] [--steps N] [--out FILE]

Both sides do forward, loss, backward and update of one network from the same weights: float32,
training mode with the network's own dropout, the same optimiser, no augmentation, data on the
device. Ours is the loop that trains, so it also gathers its batches, normalises uint8 images and
counts metrics; PyTorch's batches lie ready. PyTorch runs eagerly in four settings (either memory
layout, optimiser fused or not; the first is its default), and the fastest counts. A round gives
every contender the same number of steps, one contender after the other; the ratio is taken within
rounds, so that what slows the machine for a while slows both.

The machine must be idle otherwise: beside one busy process on two cores, PyTorch's threads waited
for each other 5 to 40 times longer than they computed. The record tells the share of the machine's
processor time that went elsewhere; above a few percent its figures mean nothing.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import torch_models
from benchmarks.idle import processor_seconds, used_elsewhere
from cifar_jax import augment, engine, models, optim, step
from cifar_jax.environment import environment
from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import fetch

CASES = ("cnn3:32", "cnn3:128", "resnet18:32")
RESULTS = Path(__file__).parent / "results" / "versus_torch.jsonl"
NUM_CLASSES = 100
# So many that the networks cannot learn these random images by heart and end with no gradients.
NUM_BATCHES = 64
# PyTorch's contenders: memory layout of images and weights, and whether the optimiser is fused.
SETTINGS = {
    "torch": (torch.contiguous_format, False),
    "torch_channels_last": (torch.channels_last, False),
    "torch_fused": (torch.contiguous_format, True),
    "torch_channels_last_fused": (torch.channels_last, True),
}
# Per turn, where --steps leaves their number open: the steps of so many seconds in PyTorch.
SECONDS_PER_TURN = 2.0
# Before the clock starts: threads that the last contender left spinning, caches that it filled.
WARM_UP_STEPS = 2

Run = Callable[[int], None]  # takes that many steps and waits for them


def make_optimizers(model: str) -> tuple[str, Any, Callable[..., torch.optim.Optimizer]]:
    """Returns description, optax transformation and PyTorch factory of a network's optimiser."""
    if model.startswith("resnet"):
        options = dict(momentum=0.9, nesterov=True, weight_decay=5e-4)
        ours, theirs = optim.create("sgd", 0.1, **options), partial(torch.optim.SGD, lr=0.1)
        return "sgd 0.1, Nesterov 0.9, decay 5e-4", ours, partial(theirs, **options)
    return "adam 1e-3", optim.create("adam", 1e-3), partial(torch.optim.Adam, lr=1e-3)


def make_ours(
    model: str, optimizer, images: np.ndarray, labels: np.ndarray, batch_size: int
) -> tuple[Run, step.TrainState, float]:
    """Returns our contender, its state before the first run, and the seconds of compilation.

    Args:
      model: its name.
      optimizer: optax's.
      images: [N, 32, 32, 3] uint8.
      labels: [N] int32.
      batch_size: a divisor of N.
    """

    def build(rngs):
        return models.create(model, NUM_CLASSES, rngs)

    networks = step.split_networks(build)
    train_step = step.make_train_step(
        networks.train,
        optimizer,
        augment=augment.parse(""),
        preprocess=partial(augment.normalize, mean=0.5, std=0.25),
    )
    runner = engine.create(
        lambda axis_name: train_step,
        partial(step.init, build, optimizer),
        images,
        labels,
        batch_size=batch_size,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
    )
    state, metrics = runner.init(), runner.no_metrics()
    plan = runner.plan(state, 0)

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = runner.run(state, metrics, plan, num_steps)
        check_loss(fetch(metrics)["loss"])

    return run, runner.init(), runner.compile_seconds


def make_theirs(
    model: str,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    state: step.TrainState,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    layout: torch.memory_format,
    fused: bool,
) -> Run:
    """Returns PyTorch's contender; the arguments as in `make_ours`, the weights from `state`."""
    module = torch_models.MODELS[model](NUM_CLASSES)
    torch_models.transplant(state.params, state.batch_stats, module)
    module = module.to(memory_format=layout).train()
    optimizer = make_optimizer(module.parameters(), fused=fused)
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    x = x.contiguous(memory_format=layout).split(batch_size)
    y = torch.tensor(labels).long().split(batch_size)
    num_done = 0

    def run(num_steps: int) -> None:
        nonlocal num_done
        for i in range(num_done, num_done + num_steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(x[i % len(x)]), y[i % len(y)])
            loss.backward()
            optimizer.step()
        num_done += num_steps
        check_loss(loss.item())

    return run


def check_loss(loss: float) -> None:
    """Raises RuntimeError for a loss that is not finite: its steps may take another time."""
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the times would mean nothing")


def take_turns(contenders: dict[str, Run], rounds: int, steps: int) -> dict[str, list[float]]:
    """Returns the milliseconds per step of every contender, one number per round."""
    ms = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            run(WARM_UP_STEPS)
            ms[name].append(1e3 * _seconds(run, steps) / steps)
    return ms


def _seconds(run: Run, num_steps: int) -> float:
    start = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - start


def compare(ms: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Reduces milliseconds per step and round, {"jax" and each of SETTINGS: [rounds]}.

    Returns:
      The medians jax_ms and torch_ms, that of the setting with the smallest one; the setting; and
      median, min and max of jax / torch over the rounds.
    """
    setting = min(SETTINGS, key=lambda name: statistics.median(ms[name]))
    ratios = [ours / theirs for ours, theirs in zip(ms["jax"], ms[setting], strict=True)]
    return {
        "jax_ms": statistics.median(ms["jax"]),
        "torch_ms": statistics.median(ms[setting]),
        "torch_setting": setting,
        "ratio": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
    }


def measure(model: str, batch_size: int, rounds: int, steps: int | None = None) -> dict[str, Any]:
    """Measures one network and returns its record.

    Args:
      model: a key of torch_models.MODELS.
      batch_size: images per step.
      rounds: turns of each contender.
      steps: per turn; None for those that PyTorch takes in SECONDS_PER_TURN, at least 4.
    """
    rng = np.random.default_rng(0)
    num_images = batch_size * NUM_BATCHES
    images = rng.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_images, np.int32)
    optimizer, ours, theirs = make_optimizers(model)
    run, state, compile_seconds = make_ours(model, ours, images, labels, batch_size)
    contenders = {"jax": run}
    for name, setting in SETTINGS.items():
        contenders[name] = make_theirs(model, theirs, state, images, labels, batch_size, *setting)
    for run in contenders.values():
        run(WARM_UP_STEPS)
    if steps is None:
        steps = max(4, round(SECONDS_PER_TURN / (_seconds(contenders["torch"], 2) / 2)))
    before = processor_seconds()
    ms = take_turns(contenders, rounds, steps)
    after = processor_seconds()
    record = environment()
    record["versions"]["torch"] = torch.__version__
    return {
        "model": model,
        "batch_size": batch_size,
        "dtype": "float32",
        "optimizer": optimizer,
        "rounds": rounds,
        "steps_per_round": steps,
        **compare(ms),
        "compile_seconds": compile_seconds,
        "ms_per_step": ms,
        "used_elsewhere": used_elsewhere(before, after),
        "threads": {"cores": os.cpu_count(), "torch": torch.get_num_threads()},
        **record,
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    row = "{:<10} {:>5} {:>9} {:>10}  {:<25} {:>11} {:<16} {:>9} {:>14}".format
    titles = ("model", "batch", "JAX ms", "PyTorch ms", "", "JAX/PyTorch", "", "compile s")
    titles += ("used elsewhere",)
    lines = [row(*titles)]
    for r in records:
        ratio, elsewhere = r["ratio"], r["used_elsewhere"]
        lines.append(
            row(
                r["model"],
                r["batch_size"],
                f"{r['jax_ms']:.2f}",
                f"{r['torch_ms']:.2f}",
                r["torch_setting"],
                f"{ratio['median']:.2f}",
                f"({ratio['min']:.2f} to {ratio['max']:.2f})",
                f"{r['compile_seconds']:.1f}",
                "?" if elsewhere is None else f"{elsewhere:.0%}",
            )
        )
    return "\n".join(lines)


def parse_case(text: str) -> tuple[str, int]:
    """Returns model and batch size of "cnn3:128"; the batch size is 32 where none is given.

    Raises:
      UserError: for an unknown network or a batch size that is no whole number above 0.
    """
    model, _, batch_size = text.partition(":")
    if model not in torch_models.MODELS:
        raise unknown("model", model, torch_models.MODELS)
    if not (batch_size or "32").isdecimal() or int(batch_size or 32) < 1:
        raise UserError(f"{text!r} needs a whole number above 0 behind the colon")
    return model, int(batch_size or 32)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the cases of the command line, one JSON line each, and prints their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="MODEL[:BATCH]", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help="per round; default: 2 seconds")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        cases = [parse_case(text) for text in args.cases]
    except UserError as error:
        parser.error(str(error))
    if args.rounds < 1 or (args.steps is not None and args.steps < 1):
        parser.error("--rounds and --steps need whole numbers above 0")

    jax.config.update("jax_platforms", "cpu")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for model, batch_size in cases:
        records.append(measure(model, batch_size, args.rounds, args.steps))
        with args.out.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
