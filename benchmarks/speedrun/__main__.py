"""Times the recipes in configs/speedrun/ from start to end.

    python -m benchmarks.speedrun NAME [--runs N] [--clock T1|T2] [--framework jax|torch]
                                  [--out FILE] [--config.FIELD=VALUE ...]

NAME is airbench94, airbench95, airbench96 or cifar100_75. The programs are compiled, the whole
recipe is run once on randomly permuted labels to warm up, and then --runs times with consecutive
seeds. Every run is recorded. The clocks are those of the published results:
  T1  whitening, augmentation, training and the last evaluation; the data is already on the device.
      The clock of cifar10-airbench, whose evaluation averages several views of each image.
  T2  initialization of the parameters, upload of the data, whitening, augmentation and training;
      no evaluation. The clock of the CIFAR-100 speedrun.
Neither covers compilation, which takes place before the timed runs. --framework torch runs an
independent implementation of the recipe in PyTorch (`make reference` installs PyTorch); on a GPU it
compiles the network. Fields of the config are set as in training, for example for a smaller trial.
One line of JSON per run is appended to FILE; the summary covers the runs of this command.
"""

import os
import re

from benchmarks import harness
from benchmarks.speedrun.records import CLOCKS, PUBLISHED
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry


def main(argv: list[str]) -> int:
    """Runs a recipe, prints a summary and returns the exit code."""
    parser = make_parser()
    args, overrides = parser.parse_known_args(argv[1:])
    others = [arg for arg in overrides if not re.match(r"--?(no)?config\.", arg)]
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if args.framework == "torch":  # leaves PyTorch the memory of the GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    records = []
    try:
        harness.check_between("--runs", args.runs, 1, 10_000)
        harness.check_between("--first_seed", args.first_seed, 0, 2**31)
        if args.framework == "torch":
            harness.require_packages("torch")
        # These import jax, so they must come after entry.run.
        from benchmarks.speedrun.measure import check, config_path, measure
        from benchmarks.speedrun.summary import summarize
        from cifar_jax.config import command_line

        path = config_path(args.name)
        config, _ = command_line.parse([argv[0], f"--config={path}", *overrides], __doc__)
        if args.data_dir:
            config.data.dir = args.data_dir
        config = check(config)
        clock = args.clock or PUBLISHED[args.name].clock
        with harness.open_output(args.out) as output:
            for record in measure(config, clock, args.framework, args.runs, args.first_seed):
                records.append(record)
                harness.append(output, record)
                print(
                    f"run {len(records)} of {args.runs}, seed {record['seed']}: "
                    f"{record['accuracy']:.2%} in {record['seconds']:.2f} s",
                    flush=True,
                )
    except (UserError, OSError) as error:
        return harness.reject(error)
    busiest = max(records, key=lambda record: record["used_elsewhere"] or 0)
    harness.warn_if_busy(busiest)
    print(f"{summarize(records)}\n  records in        {args.out}")
    return 0


def make_parser():
    """Returns the parser of the command's own options; others are fields of the config."""
    parser = harness.make_parser("speedrun", __doc__, out=True)
    parser.add_argument("name", choices=PUBLISHED, metavar="NAME", help=", ".join(PUBLISHED))
    parser.add_argument(
        "--runs", type=int, default=1, metavar="N", help="number of timed runs (default: 1)"
    )
    parser.add_argument(
        "--clock", choices=CLOCKS, help="what is timed (default: as in the published result)"
    )
    parser.add_argument(
        "--framework",
        choices=("jax", "torch"),
        default="jax",
        help="framework that runs the recipe (default: jax)",
    )
    parser.add_argument(
        "--first_seed",
        type=int,
        default=0,
        metavar="SEED",
        help="seed of the first run (default: 0)",
    )
    parser.add_argument("--data_dir", default="", help="directory of the TFDS data sets")
    return parser


if __name__ == "__main__":
    entry.run(main, stop_message=harness.STOPPED)
