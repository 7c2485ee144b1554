"""Compiles programs for an H100 on any machine, and counts kernels, launches and bytes.

    python -m benchmarks.gpu_program [CASE ...] [--no_cuda_graph] [--out FILE]

A case is one of benchmarks.throughput, MODEL[:BATCH[:DTYPE]], or a config in a subfolder of
configs/, such as speedrun/airbench94. Of a model, only the training program is compiled; of a
config, all programs: one for each size of the training images, and one that evaluates the test set.
Without a case, every network of the write-ups and every speedrun is compiled, which takes about
fifteen minutes on two CPU cores. This needs Python 3.12 or newer and
`pip install -r requirements-gpu-program.txt`, but no GPU.

The record holds, per step:
  launches: The launches by the host; 0 if the whole call is one CUDA graph.
  kernels: Kernels, library calls and copies.
  bytes: The size of the results and distinct operands of all kernels, whether or not they stay in
    the cache.
  FLOPs: The FLOPs of convolutions and matrix products, as compiled.
  at least: A lower bound on the time. It is a sum over the kernels: for each, the largest of
    2 us, bytes / bandwidth and FLOPs / peak. Convolutions take longer: those of ResNet-18 reach
    about half of the peak. A kernel whose arrays are in the cache (50 MB) can take less.
It also holds the number of steps that the program takes in a run. One line of JSON per program is
appended to FILE.
"""

import os
from collections.abc import Sequence
from functools import partial

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

CASES = (
    *("cnn_small", "cnn2", "simple_initial", "cnn3", "stacked3", "cnn4", "simple", "cnn9"),
    *("school", "cnn_deep", "cnn13", "vgg16", "resnet18 reference:512:bfloat16"),
    *("resnet18:128:float32", "resnet18 imagenet", "inception_resnet", "resnet34:512:bfloat16"),
    "resnet50",
    *("speedrun/airbench94", "speedrun/airbench95", "speedrun/airbench96"),
    "speedrun/cifar100_75",
)


def main(argv: Sequence[str]) -> int:
    """Compiles the cases on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("gpu_program", __doc__, out=True)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="cases to compile")
    parser.add_argument(
        "--no_cuda_graph",
        action="store_true",
        help="use XLA's default compiler options, with which the host launches every step",
    )
    args = parser.parse_args(argv[1:])
    # These must be set before jax is imported. Neither a GPU nor NVIDIA's libraries are needed.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    from benchmarks.gpu_program import h100
    from benchmarks.gpu_program.measure import measure
    from benchmarks.gpu_program.programs import parse

    try:
        cases = [(case, *parse(case)) for case in args.cases or CASES]
        h100.devices()
        measurements = [
            (case, partial(measure, case, model, settings, not args.no_cuda_graph, program))
            for case, model, settings, programs in cases
            for program in programs
        ]
        return harness.run_cases(measurements, args.out, table)
    except (UserError, OSError) as error:
        return harness.reject(error)


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<32} {:<13} {:>8} {:>8} {:>10} {:>10} {:>9} {:>9} {:>10}".format
    titles = "case", "program", "launches", "kernels", "MB", "non-conv", "GFLOP", "temp MiB"
    lines = [row(*titles, "at least")]
    for r in records:
        lines.append(
            row(
                r["case"],
                f"{r['program']} {r['image_size']}",
                r["launches_per_step"],
                r["kernels"],
                f"{r['bytes'] / 1e6:,.1f}",
                f"{r['bytes_outside_convolutions'] / 1e6:,.1f}",
                f"{r['flops'] / 1e9:,.2f}",
                f"{r['temporary_bytes'] / 2**20:,.1f}",
                f"{r['min_step_ms']:.3f} ms",
            )
        )
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, use_cache=False, stop_message=harness.STOPPED)
