"""Trains several runs at the same time, each in its own process."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy.runs import SHARING, PlannedRun, is_done
from cifar_jax.errors import UserError, shorten
from cifar_jax.runtime.signals import Preempted, handled


def train_all(runs: list[PlannedRun], args: argparse.Namespace, deadline: float) -> dict[str, str]:
    """Trains the runs that are not complete, args.jobs at a time.

    The output of a process is written to <runs>/<experiment>/<run>.log. SIGTERM, SIGINT and SIGHUP
    are forwarded to the processes, which save a checkpoint and exit.

    Args:
      runs: The runs, in order.
      args: The command's options, which the processes receive.
      deadline: When to save and stop, a value of time.monotonic().

    Returns:
      The error message of each run that failed, by its title.

    Raises:
      Preempted: After one of these signals, once every process has exited.
    """
    waiting, gpus = deque(runs), _visible_gpus()
    running: dict[int, tuple[subprocess.Popen, PlannedRun]] = {}  # by slot
    failed: dict[str, str] = {}
    with _forwarded_signals(running) as stopped:
        while running or (waiting and not stopped and time.monotonic() < deadline):
            for slot in range(args.jobs):
                if slot in running or stopped or time.monotonic() >= deadline:
                    continue
                run = _next(waiting, failed)
                if run is not None:
                    gpu = gpus[slot % len(gpus)] if gpus else None
                    sharing = _num_sharing(slot, min(args.jobs, len(runs)), len(gpus))
                    minutes = (deadline - time.monotonic()) / 60
                    running[slot] = _start(run, minutes, gpu, sharing, args), run
                    if stopped:  # meanwhile, so the signal was not forwarded to it
                        running[slot][0].send_signal(stopped[-1])
            time.sleep(0.2)
            for slot, (process, run) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                outcome = "stopped" if process.returncode and stopped else _outcome(process, run)
                if outcome == "failed":
                    reason = _last_line(_log_file(run, args), run.title)
                    failed[run.title] = f"exit code {process.returncode}{reason}"
                print(f"{outcome}: {run.title}", flush=True)
    if stopped:
        raise Preempted(stopped[0], "stopped: run the same command to continue")
    return failed


def _next(waiting: deque[PlannedRun], failed: dict[str, str]) -> PlannedRun | None:
    """Returns the next run that needs training, or None; records runs that cannot be trained."""
    while waiting:
        run = waiting.popleft()
        try:
            if not is_done(run):
                return run
        except Exception as error:  # such as a missing file: the others train nevertheless
            if not isinstance(error, UserError):
                traceback.print_exc()
            print(f"error: {run.title}: {error}", file=sys.stderr)
            failed[run.title] = str(error)
    return None


def _num_sharing(slot: int, num_slots: int, num_gpus: int) -> int:
    """Returns how many of the slots share a slot's GPU or, without GPUs, the cores."""
    num_devices = max(num_gpus, 1)
    return len(range(slot % num_devices, num_slots, num_devices))


def _log_file(run: PlannedRun, args: argparse.Namespace) -> Path:
    """Returns the file with the output of a run's process."""
    return args.runs / run.experiment / f"{run.name}.log"


def _last_line(log: Path, title: str) -> str:
    """Returns ": " and the last line that a process has printed, or "" if there is none."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {shorten(lines[-1].removeprefix(f'failed: {title}: '), 300)}" if lines else ""


def _outcome(process: subprocess.Popen, run: PlannedRun) -> str:
    """Returns how a run's process ended; it also exits with 0 when it saves at the deadline."""
    if process.returncode:
        return "failed"
    return "ended" if (run.log / "summary.json").exists() else "out of time"


@contextlib.contextmanager
def _forwarded_signals(
    running: dict[int, tuple[subprocess.Popen, PlannedRun]],
) -> Iterator[list[int]]:
    """Forwards signals to the running processes and collects them in a list."""
    received = []

    def forward(signum, _frame):
        received.append(signum)
        for process, _ in running.values():
            process.send_signal(signum)

    handlers = {s: signal.signal(s, forward) for s in handled()}
    try:
        yield received
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _start(
    run: PlannedRun, minutes: float, gpu: str | None, sharing: int, args: argparse.Namespace
) -> subprocess.Popen:
    """Starts a run in its own process, on the given GPU if there is one.

    Args:
      run: The run.
      minutes: The time after which it saves and stops.
      gpu: The CUDA identifier of its GPU, or None.
      sharing: The number of runs that share the GPU or, without one, the cores.
      args: The command's options, which the process receives.
    """
    seed = run.settings.seed
    log = _log_file(run, args)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "benchmarks.accuracy", run.experiment),
        *(f"--first_seed={seed}", f"--minutes={minutes}", f"--limit={args.limit}"),
        *(f"--data_dir={args.data_dir}", f"--runs={args.runs}", f"--out={args.out}"),
        *([f"--epochs={args.epochs}"] if args.epochs is not None else []),
    ]
    # By default, the first process would reserve three quarters of a GPU's memory.
    environ = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", SHARING: str(sharing)}
    if gpu is not None:
        environ["CUDA_VISIBLE_DEVICES"] = gpu
    with log.open("w") as file:
        # In its own process group, it receives Ctrl-C only from this process. If the terminal sent
        # it a second one, it would exit without saving.
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environ, process_group=0)
    print(f"started {run.title}; its output is in {log}", flush=True)
    return process


def _visible_gpus() -> list[str]:
    """Returns the CUDA identifiers of the GPUs that this process may use."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    return []
