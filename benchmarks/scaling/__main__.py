"""Predicts the efficiency of training on 8, 64 and 512 H100s; see docs/scaling.md.

    python -m benchmarks.scaling [--compile [NETWORK ...]] [--out FILE]

Without an option, this prints the prediction from the logs. With --compile, it first compiles the
training programs of all or some networks for H100s, which takes about half an hour on two CPU
cores, and appends a line of JSON per program to FILE. That needs
`pip install -r requirements-gpu-program.txt` and Python 3.12 or newer, but no GPU.
"""

import os
from collections.abc import Sequence
from functools import partial

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError, unknown
from cifar_jax.runtime import entry


def main(argv: Sequence[str]) -> int:
    """Compiles if asked to, prints the prediction and returns the exit code."""
    parser = harness.make_parser("scaling", __doc__, out=True)
    parser.add_argument(
        "--compile", nargs="*", metavar="NETWORK", help="compile all or these networks first"
    )
    args = parser.parse_args(argv[1:])
    os.environ["JAX_PLATFORMS"] = "cpu"
    # This must be set before jax is imported, so that its CUDA plugin loads without a GPU.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    from benchmarks.gpu_program import h100
    from benchmarks.scaling import compiled
    from benchmarks.scaling.networks import NETWORKS

    try:
        if args.compile is not None:
            for network in args.compile:
                if network not in NETWORKS:
                    raise unknown("network", network, NETWORKS)
            h100.devices()
            programs = []
            for network in args.compile or NETWORKS:
                programs.append((f"{network}, one host", partial(compiled.one_host, network)))
                for batch_size in compiled.BATCH_SIZES:
                    measure = partial(compiled.one_gpu, network, batch_size)
                    programs.append((f"{network}, {batch_size} images", measure))
            return harness.run_cases(programs, args.out, _table)
        from benchmarks.table import scaling

        for title, make in (
            ("Weak scaling: the same number of images per GPU", scaling.weak),
            ("Strong scaling: the same number of images per step", scaling.strong),
            ("What a larger batch is worth", scaling.limits),
        ):
            print(f"{title}\n\n{make()}\n")
    except (UserError, OSError) as error:
        return harness.reject(error)
    return 0


def _table(records: Sequence[Record]) -> str:
    """Formats the records of compiled programs as a table."""
    row = "{:<22} {:>5} {:>6} {:>12} {:>12}".format
    lines = [row("network", "GPUs", "batch", "at least", "all-reduces")]
    for r in records:
        bound = f"{r['min_step_ms']:.3f} ms" if "min_step_ms" in r else ""
        reduces = len(r.get("all_reduces", ()))
        lines.append(row(r["network"], r["num_gpus"], r["batch_size"], bound, reduces or ""))
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, use_cache=False, stop_message=harness.STOPPED)
