"""Measures the cost of augmentation, per batch and as a share of a ResNet-18 training step.

    python -m benchmarks.augmentation [LINE ...] [--batch_size B] [--rounds N] [--seconds S]

A compiled loop gathers batches of random images, augments them and normalizes them. The time of the
same loop without augmentation is subtracted round by round. The share is cost / (cost + step),
where step is the time of a training step of configs/resnet18.py without augmentation, measured in
the same run. A LINE has the format of config.augment.ops or config.augment.mix; for a mix, the loss
of the second label is not included. Without a LINE, a default selection is measured. One line of
JSON per LINE is appended to the file --out.
"""

from collections.abc import Sequence

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry


def main(argv: list[str]) -> int:
    """Measures the lines on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("augmentation", __doc__, out=True)
    parser.add_argument(
        "lines", nargs="*", metavar="LINE", help='augmentations such as "flip|crop(4)"'
    )
    parser.add_argument(
        "--batch_size", type=int, default=128, metavar="B", help="images per batch (default: 128)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="number of rounds (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="duration of a round (default: 1)"
    )
    args = parser.parse_args(argv[1:])
    # This imports jax, so it must come after entry.run.
    from benchmarks.augmentation.measure import LINES, measure_lines
    from cifar_jax import augment

    try:
        harness.check_between("--rounds", args.rounds, 1, 1000)
        harness.check_between("--batch_size", args.batch_size, 1, harness.MAX_BATCH_SIZE)
        harness.check_seconds(args.seconds)
        if not all(line.strip() for line in args.lines):
            raise UserError("a LINE must contain an operation, such as flip")
        for line in args.lines:
            augment.check(line)
        with harness.open_output(args.out) as output:
            records = measure_lines(args.lines or LINES, args.batch_size, args.rounds, args.seconds)
            harness.append(output, *records)
    except (UserError, OSError) as error:
        return harness.reject(error)
    harness.warn_if_busy(records[0])
    print(table(records))
    return 0


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    first = records[0]
    lines = [
        f"a batch of {first['batch_size']}; {first['model']} without augmentation "
        f"{first['step_ms']:,.1f} ms a step; background load {first['used_elsewhere'] or 0:.0%}"
    ]
    row = "{:>9} {:>14}  {}".format
    lines.append(row("ms", "share of step", "augmentation"))
    for r in records:
        lines.append(row(f"{r['ms']:.3f}", f"{r['share_of_step']:.3%}", r["augmentation"]))
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, stop_message=b"stopped; no record was written\n")
