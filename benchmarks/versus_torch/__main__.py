"""Compares the same training step in JAX and in PyTorch, interleaved.

    python -m benchmarks.versus_torch [MODEL[:BATCH[:DTYPE]] ...] [--rounds N] [--out FILE]

Both sides run the forward pass, loss, backward pass and update of one network from the same
weights: in training mode with the network's own dropout, with the same optimizer, without
augmentation, and with the data on the device. The JAX side is the training loop of cifar_jax, so it
also gathers its batches, normalizes uint8 images and counts metrics, whereas PyTorch's batches are
prepared in advance. For bfloat16, PyTorch uses autocast. A MODEL without BATCH uses the batch size
of its write-up; "all" selects every network that has a version in PyTorch.

PyTorch is first timed in each of its settings. On a CPU these are eager with either memory layout,
with or without a fused optimizer, and eager or compiled with channels last, a fused optimizer and
huge pages for large arrays; on a GPU they are eager, compiled, and compiled with autotuning, which
takes minutes. --settings selects some of them. The settings within 25% of the fastest one are then
interleaved with JAX; on a CPU, so is PyTorch's default setting ("torch"), if it is selected. The
record's ratio is to the setting with the lowest median, and a second ratio is to "torch". In a
round, all contenders run the same number of steps one after the other, and ratios are taken within
rounds, so that temporary slowdowns of the machine affect both sides.

On a CPU, each PyTorch contender runs in its own process. JAX has huge pages, as
`python -m cifar_jax.main` does by default; PyTorch has them in one of its settings. The record
holds the peak resident memory of both processes, including compilation.

The machine must be otherwise idle: with one other busy process on two cores, PyTorch's threads
spent 5 to 40 times as long waiting for each other as computing. The record holds the share of the
cores' time that other processes took; above a few percent its times are meaningless.
"""

import os
from collections.abc import Sequence
from functools import partial

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError, unknown
from cifar_jax.runtime import entry

# By default, XLA reserves most of a GPU's memory, which would leave PyTorch too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

CASES = ("cnn3:32", "cnn3:128", "resnet18:32")


def main(argv: list[str]) -> int:
    """Measures the cases on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("versus_torch", __doc__, out=True)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar=harness.CASE,
        default=list(CASES),
        help=f'networks to compare, or "all" (default: {" ".join(CASES)})',
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="number of rounds (default: about 10 seconds)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps per round (default: about half a second)"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="SETTING",
        help="settings of PyTorch to try, such as torch_channels_last_fused (default: all)",
    )
    args = parser.parse_args(argv[1:])
    try:
        harness.require_packages("torch")
        for name, number in (("--rounds", args.rounds), ("--steps", args.steps)):
            if number is not None:
                harness.check_between(name, number, 1, 100_000)
    except UserError as error:
        return harness.reject(error)
    # These import jax, so they must come after entry.run.
    from benchmarks.versus_torch import cases
    from benchmarks.versus_torch.compare import compare_network
    from benchmarks.versus_torch.settings import settings_here

    options = {"num_rounds": args.rounds, "num_steps": args.steps, "settings": args.settings or ()}
    texts = args.cases
    if texts == ["all"]:
        texts = cases.names()
    try:
        for name in options["settings"]:
            if name not in settings_here():
                raise unknown("setting", name, settings_here())
        measurements = [
            (":".join(map(str, case)), partial(compare_network, *case, **options))
            for case in map(cases.parse_case, texts)
        ]
        return harness.run_cases(measurements, args.out, table)
    except (UserError, OSError) as error:
        return harness.reject(error)


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<16} {:>5} {:<8} {:>9} {:>10}  {:<25} {:>11} {:<16} {:>9} {:>15}".format
    titles = ("model", "batch", "dtype", "JAX ms", "PyTorch ms", "", "JAX/PyTorch", "", "compile s")
    titles += ("background load",)
    lines = [row(*titles)]
    for r in records:
        ratio, load = r["ratio"], r["used_elsewhere"]
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
                "?" if load is None else f"{load:.0%}",
            )
        )
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, use_cache=False, stop_message=harness.STOPPED)
