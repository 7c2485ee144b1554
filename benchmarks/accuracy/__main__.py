"""Trains published experiments and prints the measured results next to the published ones.

    python -m benchmarks.accuracy [ID ...] [--seeds N] [--epochs E] [--data_dir D] [--minutes M]

An ID is an experiment such as "coarse/cnn4", a pattern such as "coarse/*", or any other config such
as "resnet18". Without an ID, all 37 experiments are trained. All of them run with seed 0 in the
given order, then all with seed 1, and so on. Completed runs are skipped, and runs that were
interrupted or reached the end of --minutes are resumed. Experiments whose pretrained weights cannot
be downloaded are skipped.

The log of a completed run (config.json, metrics.csv and summary.json) is copied from its workdir
under --runs to --out, by default a folder under --runs. The logs of this checkout, from which
`python -m benchmarks.table` builds the tables of README and docs, are in
benchmarks/results/accuracy. Runs whose number of epochs differs from the config have separate logs
and separate rows in the table.

--jobs K trains up to K runs at the same time, each in its own process, and distributes them over
the GPUs. While one run compiles, others train, and a GPU can train several small networks at once.
"""

import argparse
import math
import time
from pathlib import Path

from benchmarks import harness
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import Preempted


def main(argv: list[str]) -> int:
    """Trains the experiments on the command line and returns the exit code, 1 if one failed."""
    args = make_parser().parse_args(argv[1:])
    if args.out is None:
        args.out = args.runs / "logs"
    deadline = time.monotonic() + 60 * args.minutes
    try:
        check(args)
        # These import jax, so they must come after entry.run.
        from benchmarks.accuracy import jobs, runs
        from benchmarks.accuracy.table import table
        from benchmarks.results import rows

        experiments = runs.choose(args.experiments)
        planned = runs.plan(experiments, args)
        skipped = runs.without_weights(planned)
        planned = [run for run in planned if run.title not in skipped]
    except UserError as error:
        return harness.reject(error)
    try:
        if args.jobs > 1:
            failed = jobs.train_all(planned, args, deadline)
        else:
            from benchmarks.accuracy import sequential

            failed = sequential.train_all(planned, deadline)
    except Preempted as stopped:
        print(stopped)
        return stopped.exit_code
    print("\n" + table([row for row in rows(args.out) if row.experiment in experiments]))
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    for name, error in failed.items():
        print(f"failed: {name}: {error}")
    if time.monotonic() >= deadline:
        limit = f"{args.minutes:g} minutes"
        print(f"the time limit of {limit} is reached: run the same command to continue")
    return 1 if failed else 0


def make_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = harness.make_parser("accuracy", __doc__)
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
        "--limit", type=int, default=0, help="number of images of each split to use, or 0 for all"
    )
    parser.add_argument("--data_dir", default="", help="directory of the TFDS data sets")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/accuracy"), help="directory of the workdirs"
    )
    parser.add_argument(
        "--out", type=Path, help="directory of the logs (default: the folder logs in --runs)"
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Checks the numbers and directories on the command line.

    Raises:
      UserError: If a number is out of range, or a directory cannot be written.
    """
    harness.check_between("--seeds", args.seeds, 1, 1000)
    harness.check_between("--first_seed", args.first_seed, 0, 2**32 - args.seeds)
    harness.check_between("--jobs", args.jobs, 1, 64)
    harness.check_between("--limit", args.limit, 0, 50_000)
    if args.epochs is not None:
        harness.check_between("--epochs", args.epochs, 1, 100_000)
    harness.check_minutes(args.minutes)
    # Checked before training, so that a run is not lost because a directory cannot be written.
    harness.check_folder("--runs", args.runs)
    harness.check_folder("--out", args.out)
    if args.out.resolve() == args.runs.resolve():
        raise UserError(f"--out and --runs are both {args.out}: choose two folders")


if __name__ == "__main__":
    entry.run(main)
