"""Formats measured results next to published ones."""

import statistics

from benchmarks.results import Row, percent, points


def table(results: list[Row]) -> str:
    """Formats rows as a table.

    A row shows the published and the measured accuracy, their difference or why they are not
    comparable, and the test loss and training time if they were published. With several runs, the
    standard deviation and the 95% confidence interval follow the mean.
    """
    lines = [("experiment", "published", "measured", "difference", "loss", "seconds")]
    for row in results:
        published = row.published.test_accuracy
        measured = f"{percent(row.accuracies)}, {row.num_runs}" if row.logs else "-"
        epochs = row.logs[0].settings["num_epochs"] if row.logs else row.num_epochs
        if epochs != row.num_epochs:
            measured += f" at epoch {epochs} of {row.num_epochs}"
        lines.append(
            (
                " ".join((row.experiment, *row.changed)),
                row.published.other or "-" if published is None else percent([published]),
                measured,
                row.reason or f"{points(row)} points",
                _compared(row, row.published.test_loss, "test_loss", ".4f"),
                _compared(row, row.published.seconds, "train_seconds", ",.0f"),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _compared(row: Row, published: float | None, field: str, spec: str) -> str:
    measured = [log.summary[field] for log in row.logs]
    if published is None or not measured:
        return ""
    return f"{published:{spec}}, here {statistics.mean(measured):{spec}}"
