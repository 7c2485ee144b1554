"""Trains published experiments and prints the measured next to the published results.

    python -m benchmarks.accuracy [ID ...] [--seeds N] [--epochs E] [--data_dir D] [--minutes M]

An ID is an experiment such as "coarse/cnn4", a pattern such as "coarse/*", or any other config such
as "resnet18". Without an ID, all 37 experiments are trained. All of them run with seed 0 in the
given order, then all with seed 1, and so on. Completed runs are skipped, and runs that were
interrupted or reached the end of --minutes are resumed.

The log of a completed run (config.json, metrics.csv and summary.json) is copied from its workdir
under --runs to --out. The default of --out is benchmarks/results/accuracy, from which
`python -m benchmarks.table` builds the README's table; with --limit, which is for trials, it is a
directory under --runs. Runs whose number of epochs differs from the config have separate logs and
separate rows in the table.

--jobs K runs up to K training runs at the same time, each in its own process, and distributes them
over the GPUs. While one run compiles, others train, and a GPU can train several small networks at
once.
"""

import argparse
import contextlib
import fnmatch
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections import deque
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks import harness
from benchmarks.harness import RESULTS, ROOT
from benchmarks.published import PUBLISHED
from benchmarks.results import Row, load_config, percent, rows
from cifar_jax import config
from cifar_jax.errors import UserError, unknown
from cifar_jax.report.published import what_counts


def main(argv: list[str]) -> int:
    """Runs the experiments on the command line and returns the exit code."""
    parser = harness.make_parser("accuracy", __doc__, allow_abbrev=False)
    parser.add_argument(
        "experiments", nargs="*", metavar="ID", help="experiments to train (default: all)"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of runs of each experiment (default: 1)"
    )
    parser.add_argument("--first_seed", type=int, default=0, help="seed of the first run")
    parser.add_argument(
        "--epochs", type=int, help="epochs of each run (default: the config's value)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of concurrent runs")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="time limit (default: none)"
    )
    parser.add_argument(
        "--limit", type=int, default=0, help="images of each split to use, or 0 for all"
    )
    parser.add_argument("--data_dir", default="", help="directory of the TFDS data sets")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/accuracy"), help="directory of the workdirs"
    )
    parser.add_argument("--out", type=Path, help="directory of the logs (default: see above)")
    args = parser.parse_args(argv[1:])
    if args.out is None:  # a trial on a subset of the images is not a result
        args.out = args.runs / "logs" if args.limit else RESULTS / "accuracy"
    try:
        chosen = choose(args.experiments)
        if args.seeds < 1 or args.jobs < 1 or (args.epochs is not None and args.epochs < 1):
            raise UserError("--seeds, --jobs and --epochs need 1 or more")
        if args.limit < 0 or args.first_seed < 0:
            raise UserError("--limit and --first_seed need 0 or more")
        if not args.minutes > 0:
            raise UserError(f"--minutes needs more than 0, not {args.minutes}")
    except UserError as error:
        return harness.reject(error)
    return run(chosen, args) if args.jobs == 1 else run_jobs(chosen, args)


def choose(patterns: list[str]) -> list[str]:
    """Returns the experiments selected by patterns, in the order of the patterns.

    A pattern selects the published experiments that match it, or else the config of that name.

    Raises:
      UserError: If a pattern matches nothing.
    """
    chosen = []
    for pattern in patterns or ["*"]:
        matching = [e for e in sorted(PUBLISHED) if fnmatch.fnmatchcase(e, pattern)]
        if not matching and (ROOT / "configs" / f"{pattern}.py").is_file():
            matching = [pattern]
        if not matching:
            raise unknown("experiment", pattern, PUBLISHED)
        chosen += matching
    return list(dict.fromkeys(chosen))


def run(experiments: list[str], args: argparse.Namespace) -> int:
    """Trains the experiments, copies their logs and prints the table.

    Returns:
      The exit code, 1 if a run failed.
    """
    # Importing JAX takes a second, so the command line is checked first.
    import jax

    from cifar_jax.runtime import compilation_cache
    from cifar_jax.runtime.signals import Preempted, exit_on_signals
    from cifar_jax.train import train

    compilation_cache.use_users_folder()

    failed = {}
    deadline = time.monotonic() + 60 * args.minutes
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for experiment in experiments:
            settings = load_config(experiment)
            settings.seed, settings.data.dir, settings.data.limit = seed, args.data_dir, args.limit
            # Save checkpoints by time: an epoch may take less time than saving one.
            settings.checkpoint.every_epochs = settings.num_epochs
            settings.checkpoint.every_minutes = 2.0
            name = f"seed{seed}"
            if args.epochs is not None and args.epochs != settings.num_epochs:
                settings.num_epochs = args.epochs
                name += f"_{args.epochs}epochs"
            if args.limit:
                name += f"_{args.limit}images"
            target = args.out / experiment / name
            if time.monotonic() >= deadline:
                break
            print(f"\n{experiment}, {name}:")
            exit_on_signals()
            try:
                if is_done(target, settings):
                    print(f"already complete: {target}")
                    continue
                train(settings, args.runs / experiment / name, deadline)
            except Preempted as stopped:
                print(stopped)
                if time.monotonic() >= deadline:
                    break
                return stopped.exit_code
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                failed[experiment] = str(error)
                continue
            except Exception as error:  # a failed experiment does not stop the others
                traceback.print_exc()
                failed[experiment] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            copy_log(args.runs / experiment / name, target)
            jax.clear_caches()  # frees the compiled programs of this network
    _print_results(experiments, args, failed)
    if time.monotonic() >= deadline:
        _print_time_limit(args)
    return 1 if failed else 0


def _print_results(experiments: list[str], args: argparse.Namespace, failed: dict[str, str]):
    print("\n" + table([row for row in rows(args.out) if row.experiment in experiments]))
    for experiment, error in failed.items():
        print(f"failed: {experiment}: {error}")


def _print_time_limit(args: argparse.Namespace) -> None:
    limit = f"{args.minutes:g} minutes"
    print(f"the time limit of {limit} is reached: run the same command to continue")


def run_jobs(experiments: list[str], args: argparse.Namespace) -> int:
    """Like `run`, but with args.jobs concurrent runs, each in its own process.

    The output of a process is written to <runs>/<experiment>/seed<N>.log. SIGTERM and SIGINT are
    forwarded to the processes, which save a checkpoint and exit.
    """
    deadline = time.monotonic() + 60 * args.minutes
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    waiting = deque((experiment, seed) for seed in seeds for experiment in experiments)
    gpus = _visible_gpus()
    running: dict[int, tuple[subprocess.Popen, str]] = {}  # by slot
    failed, stopped = {}, []

    def stop(signum, _frame):
        stopped.append(signum)
        for process, _ in running.values():
            process.send_signal(signum)

    handlers = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    while running or (waiting and not stopped and time.monotonic() < deadline):
        for slot in range(args.jobs):
            if slot in running or not waiting or stopped or time.monotonic() >= deadline:
                continue
            experiment, seed = waiting.popleft()
            minutes = (deadline - time.monotonic()) / 60
            gpu = gpus[slot % len(gpus)] if gpus else None
            process = _start_job(experiment, seed, minutes, gpu, args)
            running[slot] = process, f"{experiment}, seed {seed}"
        time.sleep(0.2)
        for slot, (process, name) in list(running.items()):
            if process.poll() is None:
                continue
            del running[slot]
            print(f"{'ended' if not process.returncode else 'failed'}: {name}", flush=True)
            if process.returncode and not stopped:
                failed[name] = f"exit code {process.returncode}"
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    _print_results(experiments, args, failed)
    if stopped:
        return 128 + stopped[0]
    if waiting or time.monotonic() >= deadline:
        _print_time_limit(args)
    return 1 if failed else 0


def _start_job(
    experiment: str, seed: int, minutes: float, gpu: str | None, args: argparse.Namespace
) -> subprocess.Popen:
    """Starts one run in its own process, on the given GPU if there is one."""
    log = args.runs / experiment / f"seed{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "benchmarks.accuracy", experiment),
        *(f"--first_seed={seed}", f"--minutes={minutes}", f"--limit={args.limit}"),
        *(f"--data_dir={args.data_dir}", f"--runs={args.runs}", f"--out={args.out}"),
        *([f"--epochs={args.epochs}"] if args.epochs is not None else []),
    ]
    # By default the first process would reserve three quarters of a GPU's memory.
    environ = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if gpu is not None:
        environ["CUDA_VISIBLE_DEVICES"] = gpu
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environ)
    print(f"started {experiment}, seed {seed}; its output is in {log}", flush=True)
    return process


def _visible_gpus() -> list[str]:
    """Returns the CUDA identifiers of the GPUs that this process may use."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    return []


def is_done(target: Path, settings: ConfigDict) -> bool:
    """Returns whether the log of a run exists.

    Args:
      target: The directory of the log.
      settings: The config of the run.

    Raises:
      UserError: If the log has other settings, for example because the config has changed since.
    """
    if not (target / "summary.json").exists():
        return False
    written = config.flatten(json.loads(settings.to_json()))
    logged = written | config.flatten(json.loads((target / "config.json").read_text()))
    differing = [
        f"{name} is {logged[name]!r} in the log and {value!r} now"
        for name, value in what_counts(written).items()
        if value != logged[name] and not (name == "dtype" and value == "auto")
    ]
    if differing:
        raise UserError(
            f"{target} holds the log of other settings: {'; '.join(differing)}. Remove it to run "
            "the experiment again"
        )
    return True


def copy_log(workdir: Path, target: Path) -> None:
    """Copies the log of a completed run; summary.json is copied last because it marks the end."""
    target.mkdir(parents=True, exist_ok=True)
    settings = json.loads((workdir / "config.json").read_text())
    settings["data"]["dir"] = ""  # the path is private to this machine
    (target / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for name in ("metrics.csv", "summary.json"):
        shutil.copy(workdir / name, target / name)


def table(results: list[Row]) -> str:
    """Formats rows as a table.

    A row shows the published and the measured accuracy, their difference or why they are not
    comparable, and the test loss and training time if they were published.
    """
    lines = [("experiment", "published", "measured", "difference", "loss", "seconds")]
    for row in results:
        published = row.published.test_accuracy
        measured = percent(row.accuracies) if row.logs else "-"
        epochs = row.logs[0].settings["num_epochs"] if row.logs else row.num_epochs
        if epochs != row.num_epochs:
            measured += f" at epoch {epochs} of {row.num_epochs}"
        lines.append(
            (
                " ".join((row.experiment, *row.changed)),
                row.published.other or "-" if published is None else percent([published]),
                measured,
                row.reason or f"{100 * row.difference:+.2f} points",
                _compared(row, row.published.test_loss, "test_loss", ".4f"),
                _compared(row, row.published.seconds, "train_seconds", ",.0f"),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _compared(row: Row, published: float | None, field: str, spec: str) -> str:
    measured = [log.summary[field] for log in row.logs]
    if published is None or not measured:
        return ""
    return f"{published:{spec}}, here {statistics.mean(measured):{spec}}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
