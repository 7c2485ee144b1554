"""Builds the table of training programs that were compiled for a GPU without one."""

import json

from benchmarks import harness
from benchmarks.table.markdown import table
from benchmarks.table.speed import GRAPHS


def gpu_program() -> str:
    """Returns the table of kernels, launches and traffic, next to measured step times."""
    newest = {}
    for line in (harness.RESULTS / "gpu_program.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["cuda_graph"]:
            newest[record["case"]] = record
    measured = {}
    for line in (harness.ROOT / GRAPHS).read_text().splitlines():
        record = json.loads(line)
        if record["tag"] == "on":
            measured[record["case"]] = record["step_ms"]["median"]
    rows = []
    for case, r in sorted(newest.items(), key=lambda item: item[1]["min_step_ms"]):
        rows.append(
            (
                f"{r['model']}, {r['batch_size']}, {r['dtype']}",
                str(r["launches_per_step"]),
                str(r["kernels"]),
                f"{r['bytes'] / 1e6:,.0f} MB",
                f"{r['bytes_outside_convolutions'] / 1e6:,.0f} MB",
                f"{r['flops'] / 1e9:,.2f}",
                f"{r['min_step_ms']:.3f} ms",
                f"{measured[case]:.3f} ms" if case in measured else "",
            )
        )
    titles = (
        *("network, batch, dtype", "launches by the host", "kernels", "memory traffic"),
        *("outside convolutions", "GFLOP", "time at least", "measured"),
    )
    return table(titles, rows)
