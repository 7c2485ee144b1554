"""Decides whether a GPU runs the steps of a call as one CUDA graph.

XLA leaves convolutions and loops out of its CUDA graphs by default. If they are included, a step on
an H100 takes 0.76 to 0.96 times as long (docs/performance.md), but with other cards, drivers or
versions of jaxlib, a program may fail, crash its process, or be slower. gpu_graph="auto" therefore
tries a program in a separate process first, and keeps the answer next to the compiled programs.

    python -m cifar_jax.gpu_graph [--steps N | --decide]

prints the measurement that the answer is based on, as one line of JSON. With --decide, it keeps the
answer, as training would, and prints it, as the last line.
"""

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax.errors import unknown
from cifar_jax.run.summary import write_json
from cifar_jax.runtime import compilation_cache

SETTINGS = ("auto", "on", "off")
FILE = "gpu_graph.json"
# The graph is not used if a step takes more than this multiple of its time without the graph.
MAX_RATIO = 1.02
TIMEOUT_SECONDS = 180
# Exit codes that show that CUDA or XLA cannot run the program. Others, such as that of SIGKILL, may
# have other causes.
_CRASHES = {
    -s for s in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
}
# XLA builds the graph in the second call; the third is the first that only launches it.
_NUM_CALLS = 6


def decide(setting: str) -> bool:
    """Returns whether to compile with convolutions and loops in CUDA graphs.

    Args:
      setting: "on", "off", or "auto" to use them if they work on the first GPU and are not slower.
        Without a GPU, "auto" returns False.

    Raises:
      UserError: If the setting is unknown.
    """
    if setting not in SETTINGS:
        raise unknown("gpu_graph", setting, SETTINGS)
    if setting == "auto":
        return jax.default_backend() == "gpu" and _decide_automatically()["use"]
    return setting == "on"


@functools.cache
def _decide_automatically() -> dict[str, Any]:
    """Returns the verdict of `probe` on the first GPU, from an earlier process if possible."""
    folder = jax.config.jax_compilation_cache_dir
    path = Path(folder) / FILE if folder and "://" not in folder else None
    device = jax.local_devices()[0]
    key = f"{device.device_kind}, jax {jax.__version__}, {device.client.platform_version}"
    known = _read(path)
    if key not in known:
        verdict = probe()
        print(f"{device.device_kind}: one CUDA graph per call is {describe(verdict)}")
        if verdict["is_final"] and path is not None:
            with contextlib.suppress(OSError):  # the next process tries again
                write_json(path, known | {key: verdict})
        return verdict
    return known[key]


def _read(path: Path | None) -> dict[str, dict[str, Any]]:
    """Returns the verdicts in a file; none if it is missing or damaged."""
    try:
        verdicts = json.loads(path.read_text()) if path else {}
        return {key: v for key, v in verdicts.items() if isinstance(v["use"], bool)}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}


def probe() -> dict[str, Any]:
    """Tries CUDA graphs with convolutions and loops in another process.

    Returns:
      A dict of JSON values:
      use: Whether to use them: the parameters are bitwise equal to those without, and steps take at
        most MAX_RATIO times as long.
      is_final: Whether trying again would probably give the same answer. False if the process
        raised a Python exception or was killed, for example because it ran out of memory.
      reason: Why they are not used; empty if they are.
      ms, graph_ms: The time of a step without and with them, if both were measured.
    """
    # The calling process may hold most of the GPU's memory.
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            _command(), env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return _unused(f"it did not end within {TIMEOUT_SECONDS} s", is_final=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        if done.returncode < 0:
            last = f"the process ended with signal {-done.returncode}"
        return _unused(last, is_final=done.returncode in _CRASHES)
    try:
        measured = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return _unused("it printed no result", is_final=False)
    if not measured["is_equal"]:
        return _unused("the parameters differ", is_final=True) | measured
    if measured["graph_ms"] > MAX_RATIO * measured["ms"]:
        return _unused("it is slower", is_final=True) | measured
    return {"use": True, "is_final": True, "reason": ""} | measured


def _command() -> list[str]:
    return [sys.executable, "-m", "cifar_jax.gpu_graph"]


def _unused(reason: str, is_final: bool) -> dict[str, Any]:
    return {"use": False, "is_final": is_final, "reason": reason}


def describe(verdict: dict[str, Any]) -> str:
    """Returns a verdict in words."""
    text = "used" if verdict["use"] else f"not used: {verdict['reason']}"
    if "ms" in verdict:
        text += f" ({verdict['graph_ms']:.3f} instead of {verdict['ms']:.3f} ms per step of cnn2)"
    return text


def measure(steps_per_call: int = 100) -> dict[str, Any]:
    """Trains cnn2 on random images with and without the graph, on the first device.

    Returns:
      is_equal: Whether the parameters after all calls are bitwise equal.
      ms, graph_ms: The time of a step without and with the graph, in the fastest call after the
        second.
    """
    plain, ms = _train(steps_per_call, cuda_graph=False)
    graph, graph_ms = _train(steps_per_call, cuda_graph=True)
    is_equal = jax.tree.all(jax.tree.map(np.array_equal, plain, graph))
    return {"is_equal": is_equal, "ms": ms, "graph_ms": graph_ms}


def _train(steps_per_call: int, cuda_graph: bool) -> tuple[Any, float]:
    """Returns the parameters after all calls, and the time of a step in ms."""
    from cifar_jax import augment, engine, models, optim, step

    batch_size = 64
    count = batch_size * steps_per_call * _NUM_CALLS
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, count).astype(np.int32)
    create = functools.partial(models.create, "cnn2", 10)
    optimizer = optim.create("adam", 1e-3)

    def make_train_step(axis_name):
        return step.make_train_step(
            step.split_networks(create).train,
            optimizer,
            augment=augment.parse("flip|crop(4)"),
            preprocess=functools.partial(augment.normalize, mean=0.5, std=0.25),
            axis_name=axis_name,
        )

    eng = engine.create(
        make_train_step,
        functools.partial(step.init, create, optimizer),
        images,
        labels,
        batch_size=batch_size,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
        cuda_graph=cuda_graph,
    )
    state, metrics, seconds = eng.init(), eng.no_metrics(), []
    plan = jax.block_until_ready(eng.plan(state, 0))
    for _ in range(_NUM_CALLS):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(eng.run(state, metrics, plan, steps_per_call))
        seconds.append(time.perf_counter() - start)
    return jax.device_get(state.params), 1e3 * min(seconds[2:]) / steps_per_call


def main(argv: list[str]) -> None:
    """Prints the measurement or, with --decide, the answer, as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m cifar_jax.gpu_graph", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="steps per call (default: 100)")
    parser.add_argument("--decide", action="store_true", help="print and keep the answer")
    args = parser.parse_args(argv[1:])
    if args.decide:
        compilation_cache.use_users_folder()
        is_there = jax.default_backend() == "gpu"
        verdict = _decide_automatically() if is_there else _unused("there is no GPU", is_final=True)
        print(json.dumps(verdict))
        return
    signal.alarm(TIMEOUT_SECONDS)  # a trial that hangs ends even if the training was killed
    print(json.dumps(measure(args.steps)))


if __name__ == "__main__":
    main(sys.argv)
