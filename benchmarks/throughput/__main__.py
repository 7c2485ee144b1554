"""Measures the time to the first training step, and the time per step, of each network.

    python -m benchmarks.throughput [MODEL[:BATCH[:DTYPE]] ...] [--seconds S] [--out FILE]

Every network trains with the recipe of one experiment, augmentation included, on random images. The
recipe's batch size and dtype are used unless others are given on the command line. "all" selects
every network. Without a MODEL, all networks are timed on an accelerator, and the small ones on a
CPU.

The reported quantities are:
  compilation: The time for tracing, lowering and compiling the training program.
  first step: The first call, which runs one step.
  step: The median over rounds, where a round is one call of several steps; p95 is the 95th
    percentile over rounds.
  FLOP/s: The FLOPs of a step, before compilation, according to XLA's cost analysis, with every
    convolution computed as a direct sum (most take fewer operations on a CPU). The peak is
    measured in the same run, with a large matrix product in the same dtype.
  input: The share of a step that gathering and augmenting take, measured by interleaving with a
    program that trains on one fixed batch.
  call: The time that a call of one step takes beyond the step itself. Training makes calls that
    last about a second.

The record also holds the memory that the compiled program needs, including the data set. One line
of JSON per network is appended to FILE. It includes the share of the cores' time that other
processes took during the measurement; above a few percent the times are meaningless.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry


def main(argv: list[str]) -> int:
    """Measures the networks on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("throughput", __doc__, out=True)
    parser.add_argument(
        "models", nargs="*", metavar=harness.CASE, help='networks to time, or "all"'
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="approximate total time of the rounds of a network (default: 3)",
    )
    parser.add_argument(
        "--no_input_share", action="store_true", help="do not measure the input's share of a step"
    )
    args = parser.parse_args(argv[1:])
    # These import jax, so they must come after entry.run.
    import jax

    from benchmarks.throughput import cases
    from benchmarks.throughput.measure import measure_network

    texts = args.models or (cases.SMALL if jax.default_backend() == "cpu" else ["all"])
    try:
        harness.check_seconds(args.seconds)
        texts = cases.names() if list(texts) == ["all"] else texts
        measurements = [
            (name, partial(measure_network, name, cfg, args.seconds, not args.no_input_share))
            for name, cfg in map(cases.parse_case, texts)
        ]
        return harness.run_cases(measurements, args.out, table)
    except (UserError, OSError) as error:
        return harness.reject(error)


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<18} {:>5} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>6} {:>8} {:>9}".format
    lines = [
        row(
            *("model", "batch", "dtype", "compile", "1st step", "step", "p95", "img/s", "GFLOP/s"),
            *("peak", "input", "call", "bg load"),
        )
    ]
    for r in records:
        achieved, ms = r["flops_per_second"], r["step_time_ms"]
        lines.append(
            row(
                r["model"],
                r["batch_size"],
                r["dtype"],
                f"{r['compile_seconds']:.1f} s",
                f"{r['first_step_ms']:.0f} ms",
                f"{ms['median']:.2f} ms",
                f"{ms['p95']:.2f} ms",
                f"{r['images_per_second']:,.0f}",
                "?" if achieved is None else f"{achieved / 1e9:,.0f}",
                share(achieved and achieved / r["peak_flops_per_second"]["measured"]),
                share(r["input_share"]),
                f"{r['call_overhead_ms']:.2f} ms",
                share(r["used_elsewhere"]),
            )
        )
    return "\n".join(lines)


def share(value: float | None) -> str:
    """Formats a fraction in percent; unknown values are shown as "?"."""
    return "?" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    entry.run(main, use_cache=False, stop_message=harness.STOPPED)
