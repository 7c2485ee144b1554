"""The picture of a range test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cifar_jax.range_test.suggestion import Point, smooth


def draw(points: Sequence[Point], found: dict[str, Any], title: str, path: Path) -> None:
    """Draws loss and accuracy against the rate, with what was read off them."""
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
            ("max_learning_rate", "-.", "greatest"),
            ("steepest_learning_rate", ":", "steepest"),
        ):
            if found[name] is not None:
                label = f"{text} {found[name]:.2g}"
                axes.axvline(found[name], color="black", linestyle=style, label=label)
    # What diverges at the end would press the rest of the loss flat.
    least = float(np.min(losses))
    bottom.set_ylim(least - 0.1 * abs(least), min(float(np.max(losses)), 2.0 * losses[0]) * 1.05)
    top.set_title(f"Learning rate range test: {title}")
    bottom.set_xlabel("learning rate, growing along the training")
    top.set_xscale("log")
    top.legend(loc="best")
    figure.savefig(path, dpi=110)
