"""Draws charts of one or more runs as matplotlib figures.

Colors are from Okabe and Ito's palette, which color-blind readers can distinguish; lines also
differ in style. Figures fit on a phone's screen unless the docstring of their function says that
they are wide or tall.
"""

import base64
import io
import itertools
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cifar_jax.report.analysis import Calibration, error_rates, from_worst
from cifar_jax.report.page import words
from cifar_jax.report.read import Run

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":")
_LINES = {"train": (COLORS[0], "-"), "val": (COLORS[1], "--"), "test": (COLORS[1], "--")}
SPLITS = {"train": "training", "val": "validation", "test": "test"}
_LABELS = {
    "loss": "loss (nats)", "accuracy": "accuracy (%)", "top5_accuracy": "top-5 accuracy (%)",
}  # fmt: skip
# Fields of summary.json.
_TESTED = {"loss": "test_loss", "accuracy": "test_accuracy", "top5_accuracy": "top5_accuracy"}
SIZE = (5.2, 3.4)
_STYLE = {"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
          "axes.spines.top": False, "axes.spines.right": False,
          "text.parse_math": False}  # fmt: skip


def new(size: tuple[float, float] = SIZE) -> Figure:
    """Returns an empty figure; `size` is in inches."""
    return Figure(figsize=size, layout="constrained")


def svg(figure: Figure, salt: str) -> str:
    """Returns a figure as the text of an <svg> element, without the XML declaration.

    Args:
      figure: The figure.
      salt: Salt for the element's IDs, which must be unique among the figures of a page.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def png(figure: Figure, dpi: int = 120) -> bytes:
    """Returns a figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi, metadata={"Software": None})
    return data.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """Returns bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# Makes a function draw in the report's style, without changing matplotlib's settings.
styled = mpl.rc_context(_STYLE)


@styled
def metric(run: Run, name: str) -> Figure:
    """Plots loss or accuracy by epoch on the training images and on the evaluated split.

    Args:
      run: The run to plot. Vertical lines mark the decisions of callbacks.
      name: "loss", "accuracy" or "top5_accuracy".
    """
    figure = new()
    axes = figure.subplots()
    scale = 1 if name == "loss" else 100
    for split in ("train", run.curve):
        epochs, values = run.series(f"{split}_{name}")
        color, style = _LINES[split]
        # Without a marker, a line of a single epoch would be invisible.
        marker = "o" if len(epochs) == 1 else None
        axes.plot(
            epochs, np.multiply(values, scale), style, color=color, marker=marker, lw=2,
            label=SPLITS[split],
        )  # fmt: skip
    _mark_events(axes, run)
    tested = run.summary and run.summary.get(_TESTED[name])
    if tested is not None:
        axes.plot(
            run.summary["best_epoch"], tested * scale, "D", color=COLORS[2], label="test, reported"
        )
    axes.set(xlabel="epoch", ylabel=_LABELS[name])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def _mark_events(axes, run: Run) -> None:
    """Marks decisions of callbacks: dotted lines for learning rate cuts, a solid one for a stop."""
    seen = set()
    for epoch, text in run.events():
        stops = "stop" in text
        label = "early stop" if stops else "learning rate cut"
        axes.axvline(
            epoch, color="#555555", linestyle="-" if stops else ":", lw=1.2,
            label=None if label in seen else label,
        )  # fmt: skip
        seen.add(label)


@styled
def learning_rate(run: Run) -> Figure:
    """Plots the learning rate of each epoch's last step."""
    figure = new()
    axes = figure.subplots()
    epochs, rates = run.series("learning_rate")
    axes.plot(epochs, rates, color=COLORS[0], lw=2, marker="o" if len(epochs) == 1 else None)
    _mark_events(axes, run)
    positive = [rate for rate in rates if rate > 0]
    if positive and max(positive) / min(positive) > 20:
        axes.set_yscale("log")
    elif positive:
        axes.set_ylim(0, 1.1 * max(positive))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set(xlabel="epoch", ylabel="learning rate")
    if run.events():
        axes.legend(frameon=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


@styled
def confusion(
    matrix: np.ndarray, names: Sequence[str], *, groups: Sequence[str] = (), gray: bool = False
) -> Figure:
    """Plots a confusion matrix as fractions of each class, as a wide figure.

    Args:
      matrix: [C, C] counts; rows are classes, columns predictions.
      names: Names of the classes.
      groups: Group of each class, with the classes of a group adjacent. The axes then show groups.
      gray: Whether to use shades of gray, for printing.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new((9.5, 8.6))
    axes = figure.subplots()
    # A square root scale makes rare confusions visible.
    norm = mpl.colors.PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Greys" if gray else "Blues", norm=norm)
    axes.grid(False)
    if groups:
        edges = [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
        for edge in edges:
            axes.axhline(edge - 0.5, color="#999999", lw=0.6)
            axes.axvline(edge - 0.5, color="#999999", lw=0.6)
        bounds = [0, *edges, len(groups)]
        ticks = [(a + b - 1) / 2 for a, b in itertools.pairwise(bounds)]
        labels = [groups[a] for a in bounds[:-1]]
    else:
        ticks, labels = range(len(names)), names
    labels = [label.replace("_", " ") for label in labels]
    size = 9 if len(labels) <= 25 else 5
    axes.set_xticks(ticks, labels, rotation=90, fontsize=size)
    axes.set_yticks(ticks, labels, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1", "10", "25", "50", "100"])
    bar.set_label("percentage of the class")
    return figure


@styled
def error_bars(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Plots each class's error with its 95% confidence interval, descending, as a tall figure.

    Args:
      matrix: [C, C] confusion matrix; classes without images are omitted.
      names: Names of the classes.
    """
    rates, counts = error_rates(matrix), matrix.sum(axis=1)
    overall = 1 - np.trace(matrix) / max(matrix.sum(), 1)
    order = from_worst(rates)
    figure = new((5.2, 0.9 + 0.19 * len(order)))
    axes = figure.subplots()
    low, high = wilson(rates[order], counts[order])
    at = np.arange(len(order))
    shown = 100 * rates[order]
    reach = np.maximum([shown - 100 * low, 100 * high - shown], 0)
    axes.barh(at, shown, color=COLORS[5], height=0.75, xerr=reach, ecolor="#333333",
              error_kw={"lw": 0.8})  # fmt: skip
    axes.axvline(100 * overall, color=COLORS[1], lw=1.2, ls="--", label="all classes")
    axes.set_yticks(at, [words(names[i]) for i in order], fontsize=9)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("error (%) with 95% confidence interval")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def wilson(shares: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds of the 95% Wilson score intervals of `shares` of `counts` images."""
    z, n = 1.959964, np.maximum(counts, 1)
    center = (shares + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(shares * (1 - shares) / n + z**2 / (4 * n**2))
    return center - reach, center + reach


@styled
def reliability(calibration: Calibration) -> Figure:
    """Plots accuracy against confidence."""
    figure = new()
    axes = figure.subplots()
    middle = (calibration.edges[1:] + calibration.edges[:-1]) / 2
    axes.bar(
        100 * middle, 100 * calibration.accuracy, width=90 / len(middle), color=COLORS[5],
        label="measured",
    )  # fmt: skip
    axes.plot([0, 100], [0, 100], "--", color=COLORS[1], lw=1.5, label="perfectly calibrated")
    axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
    figure.legend(loc="outside upper left", ncols=2, frameon=False)  # no bar hides it there
    return figure


@styled
def compared(runs: Sequence[tuple[str, Run]], name: str, split: str) -> Figure:
    """Plots one metric of several runs.

    Args:
      runs: Pairs of label and run.
      name: The metric, as in `metric`.
      split: "train", or "curve" for the split that each run evaluates.
    """
    num_columns = 1 if max(len(label) for label, _ in runs) > 24 else 2
    width, height = SIZE
    figure = new((width, height + 0.2 * -(-len(runs) // num_columns)))
    axes = figure.subplots()
    scale = 1 if name == "loss" else 100
    for i, (label, run) in enumerate(runs):
        epochs, values = run.series(f"{run.curve if split == 'curve' else split}_{name}")
        axes.plot(
            epochs, np.multiply(values, scale), color=COLORS[i % len(COLORS)], label=label, lw=1.8,
            ls=STYLES[i // len(COLORS) % len(STYLES)], marker="o" if len(epochs) == 1 else None,
        )  # fmt: skip
    axes.set(xlabel="epoch", ylabel=_LABELS[name])
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower left", ncols=num_columns, frameon=False, fontsize=9)
    return figure


@styled
def gallery(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Draws labeled rows of small images, as a wide figure.

    Args:
      rows: Pairs of label and images, [K, H, W, 3] uint8 with K >= 1.
    """
    figure = new((8.0, 0.85 * len(rows) + 0.2))
    for axes, (label, images) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows):
        axes.imshow(np.concatenate(list(images), axis=1), interpolation="nearest")
        axes.set_axis_off()
        axes.set_anchor("W")
        axes.set_title(label, loc="left", fontsize=9, pad=2)
    return figure
