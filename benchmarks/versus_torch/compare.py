"""Times one network in JAX and in every setting of PyTorch, and compares the two."""

import gc
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Record, TimedLoop
from benchmarks.idle import background_load, processor_seconds
from benchmarks.versus_torch.contenders import (
    NUM_CLASSES,
    Case,
    make_jax,
    make_optimizers,
    make_torch,
)
from benchmarks.versus_torch.settings import DEFAULT, Setting, settings_here
from benchmarks.versus_torch.subprocess_contender import (
    SubprocessContender,
    peak_bytes,
    reset_peak_bytes,
)
from cifar_jax.runtime.environment import environment, num_cores

# With fewer batches, the networks would memorize these random images, and gradients would vanish.
NUM_BATCHES = 64
# A turn without --steps has as many steps as PyTorch runs in this time.
SECONDS_PER_TURN = 0.5
# Without --rounds, each contender gets about this time in total, in a bounded number of rounds.
SECONDS, MIN_ROUNDS, MAX_ROUNDS = 10.0, 10, 21
# Settings slower than the fastest one by more than this factor are dropped after a first
# measurement, the faster of FIRST_TURNS turns.
NEAR, FIRST_TURNS = 1.25, 2
# Untimed steps before each turn, because the previous contender may have left threads spinning, and
# its data in the caches.
WARM_UP_STEPS = 2


def compare_network(
    model: str,
    batch_size: int,
    dtype: str,
    *,
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
      settings: The settings of PyTorch, as names from SETTINGS; empty for all on this device.

    Raises:
      RuntimeError: If PyTorch fails in every setting, or a loss becomes NaN or infinite.
    """
    reset_peak_bytes()
    case = random_case(model, batch_size, dtype)
    description, optimizer, make_optimizer = make_optimizers(model)
    run, state, compile_seconds = make_jax(case, optimizer)
    state = jax.device_get(state.replace(key=None))  # only the weights, on the host
    make = partial(_make_contender, case, make_optimizer, state)
    contenders, first_ms = _try_settings(make, settings or settings_here(), num_steps)
    run(WARM_UP_STEPS)
    fastest_ms = min(ms for ms in first_ms.values() if ms is not None)
    num_steps = num_steps or max(1, round(1e3 * SECONDS_PER_TURN / fastest_ms))
    num_rounds = num_rounds or _plan_rounds(fastest_ms * num_steps)
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
    record["device"]["count"] = 1  # both sides use the first one
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
        **harness.background(background_load(before, after)),
        "threads": {"cores": num_cores(), "torch": torch.get_num_threads()},
        **record,
    }


def _plan_rounds(turn_ms: float) -> int:
    """Returns the number of rounds that fill SECONDS, given the milliseconds of a turn."""
    return min(max(round(1e3 * SECONDS / turn_ms), MIN_ROUNDS), MAX_ROUNDS)


def random_case(model: str, batch_size: int, dtype: str) -> Case:
    """Returns a case with NUM_BATCHES batches of random images."""
    rng = np.random.default_rng(0)
    num_images = batch_size * NUM_BATCHES
    images = rng.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_images, np.int32)
    return Case(model, batch_size, dtype, images, labels)


def time_contenders(
    contenders: dict[str, TimedLoop], num_rounds: int, num_steps: int
) -> dict[str, list[float]]:
    """Returns the milliseconds per step of every contender, one value per round."""
    turns = {
        name: partial(harness.seconds_per_step, run, num_steps, WARM_UP_STEPS)
        for name, run in contenders.items()
    }
    results = harness.interleave(turns, num_rounds)
    return {name: [1e3 * value for value in values] for name, values in results.items()}


def comparison(ms: dict[str, Sequence[float]]) -> Record:
    """Summarizes milliseconds per step and round, {"jax" or one of SETTINGS: [rounds]}.

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


def _make_contender(*args: Any) -> TimedLoop:
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
    make: Callable[[Setting], TimedLoop], names: Iterable[str], num_steps: int | None
) -> tuple[dict[str, TimedLoop], dict[str, float | None]]:
    """Times PyTorch in each setting, and keeps those that are nearly as fast as the fastest.

    Args:
      make: Creates the contender for a setting.
      names: The names of the settings.
      num_steps: The number of steps, or None to choose it from SECONDS_PER_TURN.

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
            turns = [harness.seconds_per_step(contender, count) for _ in range(FIRST_TURNS)]
            first_ms[name] = 1e3 * min(turns)
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


def _processor_seconds(contenders: Iterable[TimedLoop]) -> tuple[float, ...]:
    """Returns idle.processor_seconds, counting the contenders' processes as part of this one."""
    seconds = [run.processor_seconds for run in contenders if isinstance(run, SubprocessContender)]
    reading = processor_seconds()
    return reading and (reading[0] + sum(seconds), *reading[1:])


def _close(contenders: Iterable[TimedLoop]) -> None:
    for run in contenders:
        if isinstance(run, SubprocessContender):
            run.close()
