"""Builds the page that compares several runs."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_jax.report import figures, pictures
from cifar_jax.report.page import Chart, render
from cifar_jax.report.published import PublishedResult
from cifar_jax.report.read import Run
from cifar_jax.run.workdir import what_counts


def of_runs(
    runs: Sequence[Run],
    published: Sequence[PublishedResult | None],
    written: Sequence[dict[str, Any]],
) -> str:
    """Returns the page that compares runs.

    Args:
      runs: Two or more runs.
      published: The published result of each run's experiment.
      written: The settings of the config file of each run's experiment, or {}. They supply the
        fields that an older run lacks.
    """
    labels = _labels(runs)
    labeled = list(zip(labels, runs, strict=True))
    charts = [
        Chart(
            f"{title}, {'training images' if split == 'train' else 'validation or test images'}",
            figures.svg(figures.compared(labeled, name, split), f"{name}{split}"),
            f"{title} by epoch of {len(runs)} runs, one line per run",
        )
        for name, title in (("accuracy", "Accuracy"), ("loss", "Loss"))
        for split in ("curve", "train")
        if any(run.rows for run in runs)
    ]
    context = {
        "title": f"{len(runs)} runs",
        "rows": [_compared(*of) for of in zip(labels, runs, published, strict=True)],
        "groups": _over_seeds(runs, written),
        "notes": [f"{label}: {note}" for label, run in labeled for note in run.notes],
        "charts": charts,
        "differences": _differences(labeled),
    }
    rows = context["rows"]
    table = pictures.as_csv(list(rows[0]), [list(row.values()) for row in rows])
    context["downloads"] = [("runs.csv", figures.data_uri(table, "text/plain"))]
    return render("runs.html", context)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Returns a label for each run: experiment, seed and, if those repeat, the folder."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({_printable(run.folder)})"
        for name, run in zip(names, runs, strict=True)
    ]


def _printable(folder: Path) -> str:
    """Returns a path as text; bytes that are not UTF-8 become escapes."""
    return str(folder).encode("utf-8", "backslashreplace").decode()


def _compared(label: str, run: Run, published: PublishedResult | None) -> dict[str, Any]:
    """Returns a row of the table of runs; unknown values are None."""
    s = run.summary or {}
    _, trained = run.series("train_accuracy")
    _, evaluated = run.series(f"{run.curve}_accuracy")
    return {
        "label": label,
        "state": _state(run),
        "published": None if published is None else published.record.test_accuracy,
        "remark": "" if published is None or not s else published.reason,
        "test_accuracy": s.get("test_accuracy"),
        "evaluated": evaluated[-1] if evaluated else None,
        "train_accuracy": s.get("train_accuracy", trained[-1] if trained else None),
        "epochs": run.epochs_done,
        "num_params": s.get("num_params"),
        "step_ms": s.get("step_time_ms", {}).get("median"),
        "train_seconds": s.get("train_seconds"),
    }


def _state(run: Run) -> str:
    if run.summary is not None:
        return "complete"
    return {True: "running", False: "stopped", None: "not complete"}[run.is_at_work]


def _over_seeds(
    runs: Sequence[Run], written: Sequence[dict[str, Any]]
) -> list[tuple[str, int, float, float]]:
    """Summarizes the accuracy of complete runs that differ only in their seed.

    Args:
      runs: The runs.
      written: The settings of each run's config file.

    Returns:
      (experiment, number of seeds, mean, standard deviation) of each such group of runs.
    """
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run, defaults in zip(runs, written, strict=True):
        if run.summary is not None:
            same = what_counts(defaults | run.config)
            groups[repr(sorted(same.items()))][run.config["seed"]] = run
    summaries = []
    for by_seed in groups.values():
        if len(by_seed) > 1:
            values = [run.summary["test_accuracy"] for run in by_seed.values()]
            name = next(iter(by_seed.values())).config["experiment"]
            summaries.append((name, len(values), statistics.mean(values), statistics.stdev(values)))
    return summaries


def _differences(labeled: Sequence[tuple[str, Run]]) -> list[tuple[str, list[str]]]:
    """Returns the config fields that differ, with the value in each run.

    A field that an older run lacks does not count as a difference; its value is then a dash.
    """
    names = sorted(set().union(*(run.config for _, run in labeled)) - {"data.dir"})
    differences = []
    for name in names:
        values = [str(run.config[name]) if name in run.config else None for _, run in labeled]
        if len(set(values) - {None}) > 1:
            differences.append((name, ["-" if value is None else value for value in values]))
    return differences
