"""Builds the tables of programs compiled for a GPU on a machine without one."""

from typing import NamedTuple

from benchmarks import harness
from benchmarks.table.markdown import table
from benchmarks.table.speed import graphs, records


class SpeedRecord(NamedTuple):
    """The published time of a speedrun.

    Attributes:
      seconds: The time of a run.
      hardware: The GPU.
      with_evaluation: Whether its clock covers the evaluation of the test set.
    """

    seconds: float
    hardware: str
    with_evaluation: bool


# The sources are in the configs of these names.
SPEED_RECORDS = {
    "speedrun/airbench94": SpeedRecord(2.59, "A100 (400 W)", True),
    "speedrun/airbench95": SpeedRecord(10.4, "A100 (SXM, 80 GB)", True),
    "speedrun/airbench96": SpeedRecord(34.7, "A100 (SXM, 80 GB)", True),
    "speedrun/cifar100_75": SpeedRecord(3.50, "A100 (PCIe, 80 GB, 300 W)", False),
}


def gpu_program() -> str:
    """Returns the table of kernels, launches and traffic, next to measured step times."""
    compiled = records(harness.RESULTS / "gpu_program.jsonl")
    compiled = [r for r in compiled if r["case"] not in SPEED_RECORDS]
    newest = {r["case"]: r for r in compiled if r["cuda_graph"]}
    launched = {_label(r): r["launches_per_step"] for r in compiled if not r["cuda_graph"]}
    measured = graphs("on")
    rows = [
        (
            _label(r),
            str(launched.get(_label(r), "")),
            str(r["launches_per_step"]),
            str(r["kernels"]),
            f"{r['bytes'] / 1e6:,.0f} MB",
            f"{r['bytes_outside_convolutions'] / 1e6:,.0f} MB",
            f"{r['flops'] / 1e9:,.2f}",
            f"{r['min_step_ms']:.3f} ms",
            f"{measured[case]['step_ms']['median']:.3f} ms" if case in measured else "",
        )
        for case, r in sorted(newest.items(), key=lambda item: item[1]["min_step_ms"])
    ]
    titles = (
        *("network, batch, dtype", "launches by the host", "with one graph", "kernels"),
        "memory traffic",
        *("outside convolutions", "GFLOP", "lower bound", "measured"),
    )
    return table(titles, rows)


def speedruns() -> str:
    """Returns the table of the programs of each speedrun, next to its published time."""
    logged = records(harness.RESULTS / "gpu_program.jsonl")
    rows = []
    for case, published in SPEED_RECORDS.items():
        newest = {
            (r["program"], r["image_size"]): r
            for r in logged
            if r["case"] == case and (r["cuda_graph"] or r["program"] == "evaluation")
        }
        if not newest:
            continue
        # The programs are logged in the order in which a run takes them.
        rows += [_program_row(case, r) for r in newest.values()]
        counting = [
            r for r in newest.values() if r["program"] == "training" or published.with_evaluation
        ]
        what = "training and evaluation" if published.with_evaluation else "training"
        rows.append(
            (
                *(case, f"**{what}**", "", "", "", "", "", ""),
                f"**{sum(map(_run_seconds, counting)):.2f} s**",
                f"{published.seconds:.3g} s, {published.hardware}",
            )
        )
    titles = (
        *("config", "program", "steps of a run", "launches by the host", "kernels"),
        *("memory traffic", "GFLOP", "bound per step", "bound per run", "published time"),
    )
    return table(titles, rows)


def _program_row(case: str, record: harness.Record) -> tuple[str, ...]:
    return (
        case,
        f"{record['program']}, {record['image_size']} pixels",
        str(record["num_steps"]),
        str(record["launches_per_step"]),
        str(record["kernels"]),
        f"{record['bytes'] / 1e6:,.0f} MB",
        f"{record['flops'] / 1e9:,.0f}",
        f"{record['min_step_ms']:.3f} ms",
        f"{_run_seconds(record):.3f} s",
        "",
    )


def _run_seconds(record: harness.Record) -> float:
    """Returns the lower bound on the time that a run spends in a program."""
    return record["num_steps"] * record["min_step_ms"] / 1e3


def _label(record: harness.Record) -> str:
    return f"{record['model']}, {record['batch_size']}, {record['dtype']}"
