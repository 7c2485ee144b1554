"""All results as one page that needs no network.

    python -m benchmarks.page [--out results.html]

Every published experiment beside what was measured, and the speed of every network: the README's
tables, to sort and to look at.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.published import DOCUMENTS
from benchmarks.results import Row, rows
from benchmarks.table import epochs, newest
from cifar_jax.errors import UserError
from cifar_jax.report import figures
from cifar_jax.report.page import Chart, render, write

_TEMPLATES = Path(__file__).parent / "templates"
_CASE = ("model", "batch_size", "dtype")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("results.html"))
    args = parser.parse_args(argv)
    try:
        write(html(), args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: open it in a browser")
    return 0


def html() -> str:
    """Returns the page."""
    found = rows()
    return render(
        "results.html",
        {
            "title": "cifar_jax: measured beside published",
            "documents": DOCUMENTS,
            "rows": [_row(row) for row in found],
            "chart": _chart(found),
            "throughput": [r for _, r in newest("throughput", *_CASE)],
            "versus": [r for _, r in newest("versus_torch", *_CASE)],
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
        "deviation": statistics.stdev(row.accuracies) if len(row.logs) > 1 else None,
        "seeds": len(row.logs),
        "difference": row.difference,
        "reason": row.reason,
        "epochs": first.get("epochs"),
        "planned": row.num_epochs,
        "device": first["device"]["kind"] if first else "",
    }


def _chart(found: Sequence[Row]) -> Chart | None:
    """Draws published and measured accuracy of the experiments that have both."""
    both = [row for row in found if row.logs and row.published.test_accuracy is not None]
    if not both:
        return None
    names = [" ".join((row.experiment, *row.changed)) for row in both]
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
    """Draws pairs of accuracies, a line between them; tall.

    Args:
      names: of the experiments.
      published: fractions.
      measured: fractions.
      is_full: whether the two can be compared; the measured is a hollow point otherwise.
    """
    figure = figures.new((figures.SIZE[0], 1.0 + 0.25 * len(names)))
    axes = figure.subplots()
    at = np.arange(len(names))
    first, second = 100 * np.asarray(published), 100 * np.asarray(measured)
    full = np.asarray(is_full, bool)
    axes.hlines(at, first, second, color="#999999", lw=1.5)
    axes.plot(first, at, "D", color=figures.COLORS[1], label="published")
    axes.plot(second[full], at[full], "o", color=figures.COLORS[0], label="measured")
    axes.plot(
        second[~full],
        at[~full],
        "o",
        color=figures.COLORS[0],
        mfc="white",
        label="not comparable",
    )
    axes.set_yticks(at, names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("test accuracy (%)")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, columnspacing=1)
    return figure


if __name__ == "__main__":
    sys.exit(main())
