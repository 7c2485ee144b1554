"""The same training step in JAX and in PyTorch, in turns.

    python -m benchmarks.versus_torch [MODEL[:BATCH[:DTYPE]] ...] [--rounds N] [--out FILE]

Both sides do forward, loss, backward and update of one network from the same weights: training mode
with the network's own dropout, the same optimiser, no augmentation, data on the device. Ours is the
loop that trains, so it also gathers its batches, normalises uint8 images and counts metrics;
PyTorch's batches lie ready. bfloat16 is autocast there. A MODEL alone has the batch of its
write-up; "all" stands for every network.

PyTorch runs in each of SETTINGS first, on a CPU eagerly with either memory layout, the optimiser
fused or not, and large arrays in huge pages or not, on a GPU eagerly, compiled, and compiled with
autotuning, which takes minutes (--settings leaves some out). Those that come near the fastest then
take turns with ours, and on a CPU the one that PyTorch has by itself ("torch"); the record's ratio
is to the one with the least median, and there is another one to "torch". A round gives each the
same number of steps, one behind the other; the ratio is taken within rounds, so that what slows the
machine for a while slows both.

On a CPU each contender has a process of its own. Ours has huge pages, as `python -m cifar_jax.main`
does by itself; PyTorch has them in one of its settings. The record has the greatest resident memory
of both processes, compilation included.

The machine must be idle otherwise: beside one busy process on two cores, PyTorch's threads waited
for each other 5 to 40 times longer than they computed. The record tells the share of the cores'
time that went elsewhere; above a few percent its figures mean nothing.
"""

import argparse
import contextlib
import gc
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

# XLA would take most of a GPU's memory, and leave PyTorch the rest.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import timing, torch_models
from benchmarks.idle import processor_seconds, used_elsewhere
from benchmarks.throughput import CONFIGS, report_failed
from benchmarks.throughput import parse_case as parse_one
from benchmarks.timing import Run
from cifar_jax import augment, engine, experiment, models, optim, step
from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import fetch
from cifar_jax.runtime import compilation_cache
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.huge_pages import restart_with_huge_pages

CASES = ("cnn3:32", "cnn3:128", "resnet18:32")
RESULTS = Path(__file__).parent / "results" / "versus_torch.jsonl"
NUM_CLASSES = 100
# So many that the networks cannot learn these random images by heart and end with no gradients.
NUM_BATCHES = 64
# Per turn, where --steps leaves their number open: the steps of so many seconds in PyTorch.
SECONDS_PER_TURN = 0.5
# Of each contender's turns, where --rounds leaves their number open, and the least and most turns.
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 10.0, 5, 21
# A setting that took this much longer than the fastest in the first try is out.
NEAR = 1.25
# Before the clock starts: threads that the last contender left spinning, caches that it filled.
WARM_UP_STEPS = 2


class Setting(NamedTuple):
    """How PyTorch runs.

    Attributes:
      layout: of images and weights.
      fused: whether the optimiser is.
      huge_pages: whether large arrays are in pages of 2 MiB; on a CPU.
      compiled: torch.compile's mode, or None for eager.
    """

    layout: torch.memory_format
    fused: bool
    huge_pages: bool = False
    compiled: str | None = None


# PyTorch as it comes, on a CPU; on a GPU nobody runs it without channels last.
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
    """Returns those of SETTINGS for the device at hand."""
    return SETTINGS["cpu" if jax.default_backend() == "cpu" else "gpu"]


def make_optimizers(model: str) -> tuple[str, Any, Callable[..., torch.optim.Optimizer]]:
    """Returns description, optax transformation and PyTorch factory of a network's optimiser."""
    if model.startswith("resnet"):
        options = dict(momentum=0.9, nesterov=True, weight_decay=5e-4)
        ours, theirs = optim.create("sgd", 0.1, **options), partial(torch.optim.SGD, lr=0.1)
        return "sgd 0.1, Nesterov 0.9, decay 5e-4", ours, partial(theirs, **options)
    return "adam 1e-3", optim.create("adam", 1e-3), partial(torch.optim.Adam, lr=1e-3)


def make_ours(
    model: str, optimizer, images: np.ndarray, labels: np.ndarray, batch_size: int, dtype: str
) -> tuple[Run, step.TrainState, float]:
    """Returns our contender, its state before the first run, and the seconds of compilation.

    Args:
      model: its name.
      optimizer: optax's.
      images: [N, 32, 32, 3] uint8.
      labels: [N] int32.
      batch_size: a divisor of N.
      dtype: of the computation.
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


def make_theirs(
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
    """Returns PyTorch's contender; the arguments as in `make_ours`, the weights from `state`."""
    device = device or ("cpu" if jax.default_backend() == "cpu" else "cuda")
    # As XLA does with float32 on these devices.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # rather than go on eagerly
    module = torch_models.MODELS[model](NUM_CLASSES)
    torch_models.transplant(state.params, state.batch_stats, module)
    module = module.to(device, memory_format=setting.layout).train()
    optimizer = make_optimizer(module.parameters(), fused=setting.fused)
    x = (torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    x = x.contiguous(memory_format=setting.layout).split(batch_size)
    y = torch.tensor(labels, device=device).long().split(batch_size)

    def loss_of(images, labels):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = module(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    if setting.compiled:
        # All cases share loss_of's code: without a fresh start the second network would compile for
        # any batch size, and the ninth not at all.
        torch.compiler.reset()
        loss_of = torch.compile(loss_of, mode=setting.compiled, dynamic=False)
    num_done = 0

    def run(num_steps: int) -> None:
        nonlocal num_done
        for i in range(num_done, num_done + num_steps):
            optimizer.zero_grad()
            loss = loss_of(x[i % len(x)], y[i % len(y)])
            loss.backward()
            optimizer.step()
        num_done += num_steps
        check_loss(loss.item())

    return run


class Apart:
    """A contender in a process of its own, which waits while it is not its turn.

    Attributes:
      processor_seconds: of that process so far.
      peak_bytes: the greatest resident memory that it has had.
    """

    def __init__(
        self, make: Callable[..., Run], *args: Any, num_threads: int, huge_pages: bool = False
    ):
        """Starts the process and makes the contender in it.

        Args:
          make: a module's function that returns the contender.
          args: for `make`.
          num_threads: of PyTorch.
          huge_pages: whether the process asks for them.

        Raises:
          RuntimeError: where that fails there.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(end, num_threads, make, *args), daemon=True
        )
        with mock.patch.dict(os.environ, GLIBC_TUNABLES=f"glibc.malloc.hugetlb={int(huge_pages)}"):
            self._process.start()
        end.close()
        try:
            self._wait()
        except RuntimeError:
            self.close()
            raise

    def __call__(self, num_steps: int) -> None:
        """Takes so many steps; raises RuntimeError where they fail."""
        self._pipe.send(num_steps)
        self._wait()

    def _wait(self) -> None:
        try:
            error, self.processor_seconds, self.peak_bytes = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the contender's process has ended") from None
        if error:
            raise RuntimeError(error)

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def _serve(pipe, num_threads: int, make: Callable[..., Run], *args: Any) -> None:
    """What the process of an Apart does: makes the contender, and runs it when told to."""
    torch.set_num_threads(num_threads)
    report = lambda error="": pipe.send((error, time.process_time(), peak_bytes()))  # noqa: E731
    try:
        run = make(*args)
        report()
        while True:
            run(pipe.recv())
            report()
    except EOFError:  # the other end is gone
        return
    except Exception as error:
        traceback.print_exc()
        report(f"{type(error).__name__}: {error}")


def peak_bytes() -> int:
    """Returns the greatest resident memory of this process since `forget_peak`, or its start.

    Not getrusage's: a child inherits its parent's through exec.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def forget_peak() -> None:
    """Lets `peak_bytes` count from now on; where the system refuses, from the process's start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


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
            ms[name].append(1e3 * timing.timed(run, steps) / steps)
    return ms


def compare(ms: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Reduces milliseconds per step and round, {"jax" and some of SETTINGS: [rounds]}.

    Returns:
      The medians jax_ms and torch_ms; PyTorch's setting, the one with the least median; and median,
      min and max of jax / torch over the rounds. default_ms and ratio_to_default are the same for
      PyTorch as it comes; None where it did not run.
    """
    medians = {name: statistics.median(values) for name, values in ms.items()}
    setting = min(medians.keys() - {"jax"}, key=medians.__getitem__)

    def ratio_to(name: str) -> dict[str, float] | None:
        if name not in ms:
            return None
        ratios = [ours / theirs for ours, theirs in zip(ms["jax"], ms[name], strict=True)]
        return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}

    return {
        "jax_ms": medians["jax"],
        "torch_ms": medians[setting],
        "torch_setting": setting,
        "ratio": ratio_to(setting),
        "default_ms": medians.get(DEFAULT),
        "ratio_to_default": ratio_to(DEFAULT),
    }


def measure(
    model: str,
    batch_size: int,
    dtype: str,
    rounds: int | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures one network and returns its record.

    Args:
      model: a key of torch_models.MODELS.
      batch_size: images per step.
      dtype: "float32" or "bfloat16".
      rounds: turns of each contender; None for as many as SECONDS hold.
      steps: per turn; None for those that PyTorch takes in SECONDS_PER_TURN.
      settings: of PyTorch, names from SETTINGS; all of the device by default.
    """
    forget_peak()
    rng = np.random.default_rng(0)
    num_images = batch_size * NUM_BATCHES
    images = rng.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_images, np.int32)
    optimizer, ours, theirs = make_optimizers(model)
    run, state, compile_seconds = make_ours(model, ours, images, labels, batch_size, dtype)
    known = settings_here()
    is_cpu = jax.default_backend() == "cpu"
    state = state.replace(key=None)  # the weights alone, and on the host
    state = jax.device_get(state)
    first_round, others = {}, {}
    for name in settings or known:
        try:
            arguments = model, theirs, state, images, labels, batch_size, dtype, known[name]
            if is_cpu:
                threads = torch.get_num_threads()
                other = Apart(
                    make_theirs,
                    *arguments,
                    "cpu",
                    num_threads=threads,
                    huge_pages=known[name].huge_pages,
                )
            else:
                other = make_theirs(*arguments)
            # A compiled one records CUDA graphs in its first steps.
            other(5 if known[name].compiled else WARM_UP_STEPS)
            count = steps or timing.calibrate(other, SECONDS_PER_TURN / 2)
            first_round[name] = 1e3 * timing.timed(other, count) / count
        except Exception:  # a machine without a compiler, say; the others count
            traceback.print_exc()
            first_round[name] = None
            continue
        others[name] = other
        limit = NEAR * min(ms for ms in first_round.values() if ms is not None)
        slow = [name for name in others if first_round[name] > limit and name != DEFAULT]
        slow = [others.pop(name) for name in slow]
        _close(slow)
        del other, slow
        gc.collect()
    if not others:
        raise RuntimeError("PyTorch runs in none of its settings")
    run(WARM_UP_STEPS)
    step_ms = min(ms for ms in first_round.values() if ms is not None)
    steps = steps or max(1, round(1e3 * SECONDS_PER_TURN / step_ms))
    wanted = round(1e3 * SECONDS / (step_ms * steps))
    rounds = rounds or min(max(wanted, LEAST_ROUNDS), MOST_ROUNDS)
    before = _processor_seconds(others.values())
    ms = take_turns({"jax": run, **others}, rounds, steps)
    after = _processor_seconds(others.values())
    found = compare(ms)
    peak = None
    if is_cpu:
        peak = {"jax": peak_bytes(), "torch": others[found["torch_setting"]].peak_bytes}
    _close(others.values())
    record = environment()
    record["versions"]["torch"] = torch.__version__
    return {
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "optimizer": optimizer,
        "rounds": rounds,
        "steps_per_round": steps,
        **found,
        "peak_memory_bytes": peak,
        "compile_seconds": compile_seconds,
        "ms_per_step": ms,
        "ms_of_settings": first_round,
        "used_elsewhere": used_elsewhere(before, after),
        "threads": {"cores": len(os.sched_getaffinity(0)), "torch": torch.get_num_threads()},
        **record,
    }


def _processor_seconds(contenders: Iterable[Run]) -> tuple[float, ...]:
    """Returns idle.processor_seconds, with the processes of contenders counted as this one's."""
    apart = [run.processor_seconds for run in contenders if isinstance(run, Apart)]
    reading = processor_seconds()
    return reading and (reading[0] + sum(apart), *reading[1:])


def _close(contenders: Iterable[Run]) -> None:
    for run in contenders:
        if isinstance(run, Apart):
            run.close()


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records as a table for people."""
    row = "{:<16} {:>5} {:<8} {:>9} {:>10}  {:<25} {:>11} {:<16} {:>9} {:>14}".format
    titles = ("model", "batch", "dtype", "JAX ms", "PyTorch ms", "", "JAX/PyTorch", "", "compile s")
    titles += ("used elsewhere",)
    lines = [row(*titles)]
    for r in records:
        ratio, elsewhere = r["ratio"], r["used_elsewhere"]
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
                "?" if elsewhere is None else f"{elsewhere:.0%}",
            )
        )
    return "\n".join(lines)


def parse_case(text: str) -> tuple[str, int, str]:
    """Returns network, batch size and dtype of "cnn3:128:bfloat16", as throughput.parse_case.

    Raises:
      UserError: for an unknown network or dtype, or a batch size that is no number above 0.
    """
    name, settings = parse_one(text)
    if name not in torch_models.MODELS:
        raise unknown("model", name, torch_models.MODELS)
    return name, settings.batch_size, experiment.resolved(settings).dtype


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the cases of the command line, one JSON line each, prints their table.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versus_torch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="MODEL[:BATCH[:DTYPE]]", default=list(CASES))
    parser.add_argument("--rounds", type=int, metavar="N", help="default: some 10 seconds")
    parser.add_argument("--steps", type=int, metavar="N", help="per round; default: half a second")
    parser.add_argument("--settings", nargs="+", metavar="SETTING", help=", ".join(settings_here()))
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    args = parser.parse_args(argv)
    if args.cases == ["all"]:
        args.cases = [name for name in CONFIGS if name in torch_models.MODELS]
    try:
        cases = [parse_case(text) for text in args.cases]
        for name in args.settings or ():
            if name not in settings_here():
                raise unknown("setting", name, settings_here())
    except UserError as error:
        parser.error(str(error))
    if any(number is not None and number < 1 for number in (args.rounds, args.steps)):
        parser.error("--rounds and --steps need whole numbers above 0")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    compilation_cache.turn_off()
    records, failed = [], []
    for case in cases:
        try:
            records.append(measure(*case, args.rounds, args.steps, args.settings or ()))
        except Exception:  # as in throughput
            traceback.print_exc()
            failed.append(":".join(map(str, case)))
        else:
            with args.out.open("a") as file:
                file.write(json.dumps(records[-1]) + "\n")
        jax.clear_caches()
        gc.collect()
    print(table(records))
    return report_failed(failed)


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main())
