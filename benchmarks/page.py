"""Writes all results as one HTML page that works offline.

    python -m benchmarks.page [--out results.html]

The page compares every published experiment with its measured results and shows the speed of every
network: the tables of docs/results.md in sortable form, with a chart.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import harness
from benchmarks.published import WRITE_UPS
from benchmarks.results import Row, percent, points, rows
from benchmarks.table.markdown import device
from benchmarks.table.speed import epochs, is_full_comparison, newest
from cifar_jax.errors import UserError
from cifar_jax.report import figures
from cifar_jax.report.page import Chart, check_out, render, write
from cifar_jax.runtime import entry

_TEMPLATES = Path(__file__).parent / "templates"
_CASE = ("model", "batch_size", "dtype")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page and returns the exit code."""
    parser = harness.make_parser("page", __doc__)
    parser.add_argument("--out", type=Path, default=Path("results.html"), help="file to write")
    args = parser.parse_args(argv)
    try:
        check_out(args.out)
        write(html(), args.out)
    except UserError as error:
        return harness.reject(error)
    print(f"{args.out}: open it in a browser")
    return 0


def html() -> str:
    """Returns the page as HTML."""
    all_rows = rows()
    return render(
        "results.html",
        {
            "title": "cifar_jax: measured and published results",
            "write_ups": WRITE_UPS,
            "device": device,
            "rows": [_row(row) for row in all_rows],
            "chart": _chart(all_rows),
            "throughput": [r for _, r in newest("throughput", *_CASE)],
            "versus": [r for _, r in newest("versus_torch", *_CASE, is_valid=is_full_comparison)],
            "epochs": epochs(),
            "augmentation": [r for _, r in newest("augmentation", "augmentation", "batch_size")],
        },
        _TEMPLATES,
    )


def _row(row: Row) -> dict[str, Any]:
    first = row.logs[0].summary if row.logs else {}
    return {
        "experiment": row.experiment,
        "changed": row.changed,
        "published": row.published.test_accuracy,
        "other": row.published.other,
        "measured": statistics.mean(row.accuracies) if row.logs else None,
        "measured_text": percent(row.accuracies) if row.logs else "",
        "runs": len(row.logs),
        "runs_text": row.num_runs,
        "difference": row.difference,
        "difference_text": points(row),
        "reason": row.reason,
        "epochs": first.get("epochs"),
        "planned": row.num_epochs,
        "device": first["device"]["kind"] if first else "",
    }


def _chart(all_rows: Sequence[Row]) -> Chart | None:
    """Draws the published and measured accuracy of the experiments that have both."""
    both = [row for row in all_rows if row.logs and row.published.test_accuracy is not None]
    if not both:
        return None
    # A label has no space to list the settings that differ from the config file.
    names = [row.experiment + " *" * bool(row.changed) for row in both]
    published = [row.published.test_accuracy for row in both]
    measured = [statistics.mean(row.accuracies) for row in both]
    is_full = [row.difference is not None for row in both]
    return Chart(
        "Published and measured accuracy",
        figures.svg(dumbbells(names, published, measured, is_full), "accuracy"),
        "Published and measured accuracy of each experiment; the table below has the numbers",
    )


@figures.styled
def dumbbells(
    names: Sequence[str],
    published: Sequence[float],
    measured: Sequence[float],
    is_full: Sequence[bool],
) -> Figure:
    """Draws a row per experiment with its published and measured accuracy joined by a line.

    Args:
      names: The names of the experiments.
      published: The published accuracies, as fractions.
      measured: The measured accuracies, as fractions.
      is_full: Whether each pair is comparable; if not, the marker of the measured one is hollow.
    """
    figure = figures.new((figures.SIZE[0], 1.0 + 0.25 * len(names)))
    axes = figure.subplots()
    y = np.arange(len(names))
    published, measured = 100 * np.asarray(published), 100 * np.asarray(measured)
    full = np.asarray(is_full, bool)
    axes.hlines(y, published, measured, color="#999999", lw=1.5)
    axes.plot(published, y, "D", color=figures.COLORS[1], label="published")
    axes.plot(measured[full], y[full], "o", color=figures.COLORS[0], label="measured")
    axes.plot(
        measured[~full],
        y[~full],
        "o",
        color=figures.COLORS[0],
        mfc="white",
        label="not comparable",
    )
    axes.set_yticks(y, names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("test accuracy (%); *: with other settings")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, columnspacing=1)
    return figure


if __name__ == "__main__":
    entry.run_tool(main)
