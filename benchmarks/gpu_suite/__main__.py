"""Runs all benchmarks on a machine with a GPU.

    python -m benchmarks.gpu_suite OUT --data_dir D [--minutes 9] [--only STAGE ...]
    python -m benchmarks.gpu_suite OUT --collect

The first form runs the stages, each of which is a benchmark in its own process, and stops after
--minutes. When run again with the same OUT, it continues where it stopped. This also works on
another machine with the same kind of GPU, except that an interrupted training run starts over
there. OUT holds a few small files: records as JSON lines, accuracy.tar.gz with the logs of the
training runs, and, if it is not too large, programs.tar.gz with the compiled programs. --collect
adds records and logs to benchmarks/results; afterwards `python -m benchmarks.table` updates README
and docs.

--data_dir is a TFDS directory, a directory with the unpacked official archives, or a directory with
a script unpack.py that writes such archives (`python unpack.py FOLDER NAME`). No network is needed;
without one, experiments whose pretrained weights are not on the machine are skipped. --work is the
directory of temporary files: workdirs and compiled programs. --small tries most stages with tiny
settings in a few minutes, even on a CPU. If the checkout has no git history, the environment
variable CIFAR_JAX_COMMIT must hold its commit.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.gpu_suite.collect import collect, read_environment, unpack
from benchmarks.gpu_suite.stages import STAGES, check_device, pack_programs
from benchmarks.gpu_suite.suite import MIN_SECONDS, Suite
from benchmarks.gpu_suite.summary import summarize
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import Preempted


def main(argv: list[str]) -> int:
    """Runs the stages or collects results; returns the exit code, 1 if a benchmark failed."""
    args = make_parser().parse_args(argv[1:])
    try:
        harness.check_minutes(args.minutes)
        harness.check_between("--seeds", args.seeds, 1, 1000)
        if args.collect:
            collect(args.out)
            return 0
        environment = read_environment(args.out)
        if environment is not None and environment["small"] != args.small:
            before = "without" if args.small else "with"
            raise UserError(f"{args.out} was started {before} --small")
        stages = list(args.only or STAGES)
        suite = make_suite(args, any(STAGES[name].needs_images for name in stages))
        check_device(suite)
    except (UserError, OSError) as error:
        return harness.reject(error)
    if environment is None and "environment" not in stages:
        stages.insert(0, "environment")
    for name in stages:
        if suite.seconds_left < MIN_SECONDS:
            print(f"{name}: no time left; run the same command again to continue")
            break
        minutes = "" if suite.small else f", about {STAGES[name].minutes:g} min on an H100"
        print(f"\n{name}{minutes}; {suite.seconds_left / 60:.1f} min left", flush=True)
        try:
            STAGES[name].run(suite)
        except Preempted as stopped:
            print(stopped, file=sys.stderr)
            return stopped.exit_code
        finally:
            pack_programs(suite)
    text = summarize(suite)
    print("\n" + text)
    return harness.report_failed(suite.failed)


def make_suite(args: argparse.Namespace, needs_images: bool) -> Suite:
    """Creates the directories of a suite, and unpacks the logs that it already holds.

    Raises:
      UserError: If a folder cannot be used.
    """
    deadline = time.monotonic() + 60 * args.minutes
    out, work = args.out.resolve(), args.work.resolve()
    for name, folder in (("OUT", out), ("--work", work)):
        harness.check_folder(name, folder)
    data_dir = args.data_dir.expanduser().resolve()
    # Checked now, because the stages before the first that needs images take minutes.
    if needs_images and not data_dir.is_dir():
        raise UserError(
            f"--data_dir {args.data_dir} is not a folder (--only STAGE ... selects stages; some "
            "need no images)"
        )
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    if (out / "accuracy.tar.gz").exists():
        unpack(out / "accuracy.tar.gz", work / "accuracy")
    if (out / "programs.tar.gz").exists():
        unpack(out / "programs.tar.gz", work / "programs")
    return Suite(out, work, data_dir, deadline, args.small, args.seeds, failed=[])


def make_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = harness.make_parser("gpu_suite", __doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of the results")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path("~/tensorflow_datasets"),
        help="directory of the data sets (default: ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/gpu_suite"), help="directory of temporary files"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit (default: 9)")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs of each experiment")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        help=f"stages to run: {', '.join(STAGES)} (default: all)",
    )
    parser.add_argument("--small", action="store_true", help="try most stages with tiny settings")
    parser.add_argument(
        "--collect", action="store_true", help="add the results to benchmarks/results"
    )
    return parser


if __name__ == "__main__":
    entry.run_tool(lambda: main(sys.argv))
