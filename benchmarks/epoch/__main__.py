"""Compares a whole training epoch of cnn3 on a CPU in cifar_jax, Keras and PyTorch.

    python -m benchmarks.epoch [CONTENDER ...] [--data_dir D] [--rounds N] [--limit N] [--out FILE]

All contenders follow configs/assignment/cnn3.py: the 41,500 training images of CIFAR-100, stored as
uint8, are shuffled, flipped and shifted by up to a tenth of their size; training uses batches of
32, dropout, Adam at 1e-4 and float32, and computes loss and accuracy. Keras augments with its
layers RandomFlip and RandomTranslation inside `fit`. PyTorch augments single images with NumPy
in a Dataset that a DataLoader reads in the training process or in two worker processes, or whole
batches with tensor operations and without a DataLoader. It shifts by whole pixels, which is less
work, and uses channels_last and a fused Adam, its fastest setting for this network.
No contender draws a progress bar. All of them keep large arrays in huge pages, as
`python -m cifar_jax.main` does by default.

Every turn runs in its own process because Keras chooses its backend at import. The process first
trains on one hundred batches, which compiles everything; then it times an epoch. cifar_jax starts
the epoch from a new initialization; the others continue training. Contenders are interleaved and
ratios are taken within rounds. The machine must be otherwise idle.
"""

import argparse
import json
import subprocess
import sys

from benchmarks import harness
from benchmarks.epoch.contenders import CONTENDERS
from benchmarks.epoch.measure import measure_contenders, packages, time_epoch
from benchmarks.harness import Record
from cifar_jax.errors import UserError, unknown
from cifar_jax.runtime import entry


def main(argv: list[str]) -> int:
    """Interleaves the contenders, appends a record, prints a table and returns the exit code."""
    args = make_parser().parse_args(argv[1:])
    data_dir = None if args.synthetic else args.data_dir
    names = args.contenders or list(CONTENDERS)
    try:
        for name in names:
            if name not in CONTENDERS:
                raise unknown("contender", name, CONTENDERS)
        if args.one:
            print(json.dumps(time_epoch(names[0], data_dir, args.limit)))
            return 0
        check(args, names)
        output = harness.open_output(args.out)
    except (UserError, OSError) as error:
        return harness.reject(error)
    with output:
        try:
            record = measure_contenders(names, data_dir, args.limit, args.rounds)
        except subprocess.CalledProcessError as error:  # the process has printed the reason
            print("no record was written", file=sys.stderr)
            return error.returncode
        harness.append(output, record)
    harness.warn_if_busy(record)
    print(table(record))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = harness.make_parser("epoch", __doc__, out=True)
    parser.add_argument(
        "contenders",
        nargs="*",
        metavar="CONTENDER",
        default=[],
        help=f"cifar_jax and others to compare it with: {', '.join(CONTENDERS)} (default: all)",
    )
    parser.add_argument(
        "--data_dir", default="", metavar="D", help="TFDS directory that holds CIFAR-100"
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="train on synthetic images, for a trial"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="number of rounds (default: 3)"
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="number of images, for a trial"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser


def check(args: argparse.Namespace, names: list[str]) -> None:
    """Checks the options of a comparison.

    Raises:
      UserError: If an option is invalid.
    """
    if "cifar_jax" not in names or len(names) < 2:
        raise UserError(
            f"the contenders must include cifar_jax and another one, got {' '.join(names)}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a contender is named twice: {' '.join(names)}")
    harness.check_between("--rounds", args.rounds, 1, 1000)
    harness.require_packages(*packages(names))
    harness.check_between("--limit", args.limit, 0, 50_000)
    if args.out == harness.default_output("epoch") and (args.limit or args.synthetic):
        raise UserError(
            "a trial is not a result: choose another file with --out, or omit --limit and "
            "--synthetic"
        )


def table(record: Record) -> str:
    """Formats a record as a table."""
    lines = [f"{'':<15} {'seconds':>8} {'images/s':>9} {'loss':>7} {'accuracy':>9}"]
    for name, seconds in record["seconds"].items():
        last = record["turns"][name][-1]
        lines.append(
            f"{name:<15} {seconds:>8.1f} {last['images'] / seconds:>9,.0f} "
            f"{last['loss']:>7.3f} {100 * last['accuracy']:>8.2f}%"
        )
    times = record["times_as_fast"]
    lines.append(
        f"{times['median']:.2f} times as fast ({times['min']:.2f} to {times['max']:.2f}) as "
        f"{record['fastest_other']}; background load {record['used_elsewhere'] or 0:.1%}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, use_cache=False, stop_message=b"stopped; no record was written\n")
