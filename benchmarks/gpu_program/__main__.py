"""Compiles training programs for an H100 on any machine, and counts kernels, launches and bytes.

    python -m benchmarks.gpu_program [MODEL[:BATCH[:DTYPE]] ...] [--no_cuda_graph] [--out FILE]

A case is as in benchmarks.throughput; without one, all cases of docs/performance.md are compiled,
which takes about ten minutes on two CPU cores. Needs `pip install -r requirements-gpu-program.txt`
and Python 3.12 or newer, but no GPU.

Per training step the record holds
  launches: What the host launches; 0 if the whole call is one CUDA graph.
  kernels: Kernels, library calls and copies.
  bytes: The results and distinct operands of all kernels, whether or not they stay in the cache.
  FLOPs: Those of convolutions and matrix products, as compiled.
  at least: The sum over kernels of the largest of 2 us, bytes over the bandwidth and FLOPs over the
    peak. Convolutions take longer than that: on the card, those of ResNet-18 reach about a quarter
    of the peak.
One line of JSON per case is appended to FILE.
"""

import os
import sys

# Before JAX is imported: there is no GPU here, and no need for NVIDIA's libraries.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import harness
from benchmarks.gpu_program import h100, hlo, thunks
from benchmarks.harness import RESULTS, Record
from benchmarks.throughput import NUM_IMAGES, parse_case
from cifar_jax import data, engine, experiment
from cifar_jax.errors import UserError
from cifar_jax.runtime.compiler import compiler_options
from cifar_jax.runtime.environment import environment

OUT = RESULTS / "gpu_program.jsonl"
CASES = (
    *("cnn_small", "cnn2", "simple_initial", "cnn3", "stacked3", "cnn4", "simple", "cnn9"),
    *("school", "cnn_deep", "cnn13", "vgg16", "resnet18 reference:512:bfloat16"),
    *("resnet18:128:float32", "resnet18 imagenet", "inception_resnet", "resnet34:512:bfloat16"),
    "resnet50",
)


def measure(case: str, settings: ConfigDict, cuda_graph: bool) -> Record:
    """Compiles the training program of a case and returns its record."""
    settings = settings.copy_and_resolve_references()
    if settings.dtype == "auto":
        settings.dtype = "bfloat16"
    lowered = lower(settings, h100.devices())
    with tempfile.TemporaryDirectory() as folder:
        options = compiler_options("gpu", cuda_graph)
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        program = lowered.compile(compiler_options=options | dump)
        (dumped,) = Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt")
        launches = thunks.count(dumped.read_text())
    batch_size = settings.batch_size
    steps_per_epoch = -(-NUM_IMAGES // batch_size)
    kernels = hlo.loop_kernels(
        program.as_text(),
        {
            f"u8[{NUM_IMAGES},32,32,3]": batch_size * 32 * 32 * 3,
            f"s32[{steps_per_epoch},{batch_size}]": batch_size * 4,
        },
    )
    memory = program.memory_analysis()
    is_convolution = [kernel.kind == "convolution" for kernel in kernels]
    num_bytes = [kernel.num_bytes for kernel in kernels]
    return {
        "case": case,
        "config": settings.experiment,
        "batch_size": batch_size,
        "dtype": settings.dtype,
        "cuda_graph": cuda_graph,
        "target": h100.NAME,
        "launches_per_call": launches.per_call,
        "launches_per_step": launches.per_step,
        "kernels": launches.kernels_per_step,
        "kernels_by_kind": dict(Counter(kernel.kind for kernel in kernels).most_common()),
        "bytes": sum(num_bytes),
        "bytes_outside_convolutions": int(np.dot(num_bytes, ~np.array(is_convolution))),
        "flops": sum(kernel.flops for kernel in kernels),
        "temporary_bytes": memory.temp_size_in_bytes,
        "min_step_ms": 1e3 * sum(map(h100.min_seconds, kernels)),
        **environment(),
    }


def lower(settings: ConfigDict, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Traces and lowers the training program of a config for the given devices."""
    num_classes = data.num_classes(settings.data.name, settings.data.label)
    info = experiment.DatasetInfo(
        class_names=tuple(map(str, range(num_classes))),
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
    )
    parts = experiment.make_parts(settings, info)
    return engine.lower(
        parts.make_train_step,
        parts.init,
        num_examples=NUM_IMAGES,
        batch_size=settings.batch_size,
        mesh=engine.make_mesh(devices),
    )


def table(records: Sequence[Record]) -> str:
    """Formats the records as a table."""
    row = "{:<32} {:>8} {:>8} {:>10} {:>10} {:>9} {:>9} {:>10}".format
    titles = "case", "launches", "kernels", "MB", "non-conv", "GFLOP", "temp MiB", "at least"
    lines = [row(*titles)]
    for r in records:
        lines.append(
            row(
                r["case"],
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


def main(argv: Sequence[str]) -> int:
    """Compiles the cases on the command line, prints a table and returns the exit code."""
    parser = harness.make_parser("gpu_program", __doc__, allow_abbrev=False)
    parser.add_argument(
        "cases", nargs="*", metavar="MODEL[:BATCH[:DTYPE]]", help="cases to compile"
    )
    parser.add_argument(
        "--no_cuda_graph",
        action="store_true",
        help="use XLA's default compiler options, with which the host launches every step",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="file for the records")
    args = parser.parse_args(argv[1:])
    try:
        cases = [(case, parse_case(case)[1]) for case in args.cases or CASES]
        h100.devices()
        output = harness.open_output(args.out)
    except (UserError, OSError) as error:
        return harness.reject(error)
    except RuntimeError as error:
        return harness.reject(
            UserError(f"{error}. Run `pip install -r requirements-gpu-program.txt`")
        )
    with output:
        return harness.run_cases(
            [
                (case, partial(measure, case, settings, not args.no_cuda_graph))
                for case, settings in cases
            ],
            output,
            table,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
