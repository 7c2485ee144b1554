"""Builds the table of training programs compiled for a GPU on a machine without one."""

from benchmarks import harness
from benchmarks.table.markdown import table
from benchmarks.table.speed import graphs, records


def gpu_program() -> str:
    """Returns the table of kernels, launches and traffic, next to measured step times."""
    compiled = records(harness.RESULTS / "gpu_program.jsonl")
    compiled = [r for r in compiled if "/" not in r["case"]]  # configs are in other tables
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


def _label(record: harness.Record) -> str:
    return f"{record['model']}, {record['batch_size']}, {record['dtype']}"
