"""Builds the page about one run."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_jax.report import analysis, examples, figures, network, pictures
from cifar_jax.report.page import Chart, duration, milliseconds, percent, render
from cifar_jax.report.published import PublishedResult
from cifar_jax.report.read import Run

# Length of the lists of hardest and easiest classes, and of the most confused pairs.
_NUM_EXTREMES, _NUM_PAIRS = 5, 12


def of_run(
    run: Run,
    published: PublishedResult | None = None,
    images: np.ndarray | None = None,
    note: str = "",
) -> str:
    """Returns the page about one run as HTML.

    Args:
      run: The run, complete or not.
      published: The published result, or None if there is none.
      images: [N, 32, 32, 3] uint8, the test images; None omits the examples.
      note: Why the examples are omitted.
    """
    context = {
        "title": run.name,
        "state": state(run),
        "notes": run.notes,
        "headline": headline(run, published),
        "curves": curves(run),
        "events": run.events(),
        "layers": network.of_run(run),
        "config": sorted(run.config.items()),
        "environment": environment(run),
        "note": note,
        "downloads": downloads(run),
    }
    if run.predictions is not None:
        context |= errors(run, images)
    elif run.summary is not None and not note:
        context["note"] = "Errors by class are missing: there is no predictions.npz."
    layers = context["layers"]
    if layers:
        count = len(network.drawn(layers))
        context["diagram"] = Chart(
            "Layers", figures.svg(network.diagram(layers), "layers"),
            f"{count} layers with weights, drawn as blocks; the table below has the same numbers",
            is_wide=count > 12, min_width=max(40, 2 * count),
        )  # fmt: skip
    return render("run.html", context)


def downloads(run: Run) -> list[tuple[str, str]]:
    """Returns pairs of name and data URI for the run's files."""
    files = [run.folder / name for name in ("config.json", "metrics.csv", "summary.json")]
    contents = []
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            contents.append((path.name, path.read_bytes()))
    if run.predictions is not None:
        by = pictures.matrices(run)
        contents += [(f"confusion_{k}.csv", pictures.confusion_csv(*by[k])) for k in by]
        contents.append(("errors.json", json.dumps(pictures.numbers(run, by), indent=2).encode()))
    return [(name, figures.data_uri(data, "text/plain")) for name, data in contents]


def state(run: Run) -> str:
    """Returns the progress of a run; "" if it is complete and metrics.csv has all its epochs."""
    if run.summary is not None:
        planned = run.summary["epochs"]
        if run.epochs_done < planned:
            return f"complete, but metrics.csv has only {run.epochs_done} of its {planned} epochs"
        return ""
    done = f"{run.epochs_done} of {run.config['num_epochs']} epochs done"
    if run.is_at_work is None:
        return f"not complete: {done}"
    if run.is_at_work:
        return f"in progress: {done}"
    diverged = run.folder / "diverged.txt"
    if diverged.is_file():
        return f"not complete: {done}, then {diverged.read_text(errors='replace').strip()[:200]}"
    return f"not complete: it stopped with {done}; the same command resumes it"


def headline(run: Run, published: PublishedResult | None) -> list[tuple[str, str, str]]:
    """Returns (name, value, remark) for the main results."""
    rows = []
    if run.summary is None:
        for split in ("train", run.curve):
            epochs, values = run.series(f"{split}_accuracy")
            if values:
                name, remark = f"{figures.SPLITS[split]} accuracy", f"after epoch {epochs[-1]}"
                rows.append((name, percent(values[-1]), remark))
        return rows
    s = run.summary
    rows.append(("test accuracy", percent(s["test_accuracy"]), _remark(s, published)))
    rows.append(("top-5 accuracy", percent(s["top5_accuracy"]), "on the test images"))
    loss = "cross-entropy in nats"
    if published is not None and published.record.test_loss is not None:
        loss += f"; published {published.record.test_loss:.4f}"
    rows.append(("test loss", f"{s['test_loss']:.4f}", loss))
    how = {"last": "the last", "val": "selected on the validation split",
           "train": "selected on the training images",
           "test": "selected on the test set itself: biased"}[s["selected_on"]]  # fmt: skip
    rows.append(("epoch", f"{s['best_epoch']} of {s['epochs']}", how))
    rows.append(("parameters", f"{s['num_params']:,}", s["model"]))
    step = s["step_time_ms"]
    rows.append(
        ("step", milliseconds(step["median"]), f"95th percentile {milliseconds(step['p95'])}")
    )
    device = s["device"]
    rows.append(("training", duration(s["train_seconds"]),
                 f"{device['count']} x {device['kind']}"))  # fmt: skip
    return rows


def _remark(summary: dict[str, Any], published: PublishedResult | None) -> str:
    if published is None:
        return ""
    record, reason = published
    if record.test_accuracy is None:
        return f"published: {record.other}"
    remark = f"published {100 * record.test_accuracy:.4g}%"
    if reason:
        return f"{remark}, not comparable: {reason}"
    return f"{remark}, {100 * (summary['test_accuracy'] - record.test_accuracy):+.2f} points"


def curves(run: Run) -> list[Chart]:
    """Returns the charts of metrics.csv, or none before the end of the first epoch."""
    if not run.rows:
        return []
    charts = []
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy"), ("top5_accuracy", "Top-5")):
        ends = [
            f"{split} {values[-1]:.4f} after epoch {epochs[-1]}"
            for split in ("train", run.curve)
            for epochs, values in [run.series(f"{split}_{name}")]
            if values
        ]
        text = f"{title} by epoch: {', '.join(ends)}"
        charts.append(Chart(title, figures.svg(figures.metric(run, name), name), text))
    _, learning_rates = run.series("learning_rate")
    if learning_rates:
        charts.append(Chart(
            "Learning rate", figures.svg(figures.learning_rate(run), "rate"),
            f"Learning rate by epoch, from {learning_rates[0]:.3g} to {learning_rates[-1]:.3g}",
        ))  # fmt: skip
    return charts


def errors(run: Run, images: np.ndarray | None) -> dict[str, Any]:
    """Returns the template's variables about the predictions."""
    predictions, names = run.predictions, run.predictions.class_names

    def show(indices: np.ndarray) -> list[examples.Example]:
        return [] if images is None else examples.show(images, predictions, indices)

    context: dict[str, Any] = {"confusion": [], "bars": {}}
    matrices = pictures.matrices(run)
    for kind, (matrix, labels) in matrices.items():
        context["confusion"] += confusion_charts(matrix, labels, kind)
        context["bars"][kind] = error_chart(matrix, labels, kind)
    matrix, _ = matrices["class"]
    rates, counts = analysis.error_rates(matrix), matrix.sum(axis=1)
    calibrated = analysis.calibration(predictions.logits, predictions.labels)
    context["calibration"] = Chart(
        "Calibration", figures.svg(figures.reliability(calibrated), "calibration"),
        f"Accuracy by confidence; expected calibration error {percent(calibrated.error)}",
    )  # fmt: skip
    context["calibration_error"] = percent(calibrated.error)
    context["pairs"] = [
        (names[p.label], names[p.prediction], p.count, p.count / max(counts[p.label], 1),
         show(examples.confused(predictions, p)))
        for p in analysis.most_confused(matrix, _NUM_PAIRS)
    ]  # fmt: skip
    order = analysis.from_worst(rates)
    count = min(_NUM_EXTREMES, len(order) // 2)
    context["extremes"] = [
        (title, [(names[c], rates[c], show(examples.first(predictions, c))) for c in chosen])
        for title, chosen in (("Hardest", order[:count]), ("Easiest", order[::-1][:count]))
    ]
    return context


def confusion_charts(matrix: np.ndarray, names: Sequence[str], kind: str) -> list[Chart]:
    """Returns a confusion matrix in color and in gray, with superclasses kept together."""
    matrix, names, groups = pictures.in_order(matrix, names)
    right = np.trace(matrix) / max(matrix.sum(), 1)
    text = f"Confusion matrix by {kind}: {percent(float(right))} on the diagonal"
    if groups:
        text += ", with the classes of a superclass adjacent"
    charts = []
    for gray in (False, True):
        figure = figures.confusion(matrix, names, groups=groups, gray=gray)
        title = f"Confusion by {kind}{', gray' if gray else ''}"
        charts.append(Chart(title, figures.data_uri(figures.png(figure)), text, is_wide=True))
    return charts


def error_chart(matrix: np.ndarray, names: Sequence[str], kind: str) -> Chart:
    """Returns a chart of the errors of all classes, in descending order."""
    rates = analysis.error_rates(matrix)
    order = analysis.from_worst(rates)
    worst, best = order[0], order[-1]
    text = (
        f"Error by {kind}, from the worst, {names[worst]} with {percent(float(rates[worst]))}, "
        f"to the best, {names[best]} with {percent(float(rates[best]))}"
    )
    figure = figures.error_bars(matrix, names)
    return Chart(f"Error by {kind}", figures.svg(figure, kind), text)


def environment(run: Run) -> list[tuple[str, str]]:
    """Returns device, versions and commit of a complete run."""
    if run.summary is None:
        return []
    s = run.summary
    rows = [("device", f"{s['device']['count']} x {s['device']['kind']}")]
    rows += [(name, str(value)) for name, value in s["versions"].items()]
    memory = s.get("peak_memory_bytes")
    rows += [
        ("commit", s["git_commit"] or "unknown"),
        ("dtype", s.get("dtype") or "unknown"),
        ("compilation", f"{s['compile_seconds']:.1f} s"),
        ("peak memory", "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"),
    ]
    return rows
