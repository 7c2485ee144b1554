"""Plots a range test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cifar_jax.range_test.suggestion import Point, smooth


def draw(points: Sequence[Point], result: dict[str, Any], title: str, path: Path) -> None:
    """Plots loss and accuracy against the learning rate, and marks the suggested values."""
    rates = [point.learning_rate for point in points]
    figure = Figure(figsize=(9, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    losses = np.array([point.loss for point in points])
    accuracies = 100 * np.array([point.accuracy for point in points])
    for axes, values, label, color in (
        (top, accuracies, "accuracy (%)", "#0072b2"),
        (bottom, losses, "loss (nats)", "#d55e00"),
    ):
        axes.plot(rates, values, color=color, alpha=0.3, linewidth=1, label="measured")
        axes.plot(rates, smooth(values), color=color, linewidth=2, label="smoothed")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        for name, style, text in (
            ("base_learning_rate", "--", "base"),
            ("max_learning_rate", "-.", "max"),
            ("steepest_learning_rate", ":", "steepest"),
        ):
            if result[name] is not None:
                label = f"{text} {result[name]:.2g}"
                axes.axvline(result[name], color="black", linestyle=style, label=label)
    # Without limits, a loss that diverges at the end would flatten the rest of the curve.
    lowest = float(np.min(losses))
    bottom.set_ylim(lowest - 0.1 * abs(lowest), min(float(np.max(losses)), 2.0 * losses[0]) * 1.05)
    top.set_title(f"Learning rate range test: {title}")
    bottom.set_xlabel("learning rate, growing during training")
    top.set_xscale("log")
    top.legend(loc="best")
    figure.savefig(path, dpi=110)
