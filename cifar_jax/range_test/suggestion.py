"""Derives learning rates from the curve of a range test."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

# Minimum number of points in a curve.
MIN_POINTS = 4


class Point(NamedTuple):
    """Means over consecutive steps.

    Attributes:
      step: The last of the steps, counted from 1.
      learning_rate: Geometric mean of the learning rate.
      loss: Training loss.
      accuracy: Accuracy as a fraction, on the training images or, if the learning rate grows per
        epoch, on the evaluated split.
    """

    step: int
    learning_rate: float
    loss: float
    accuracy: float


def smooth(values: Sequence[float]) -> np.ndarray:
    """Returns the centered moving average over a tenth of the points, truncated at the ends."""
    values = np.asarray(values, np.float64)
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def suggest(points: Sequence[Point], ended_by: str = "rate") -> dict[str, Any]:
    """Derives learning rates from the smoothed curve.

    Args:
      points: The points of the curve.
      ended_by: What ended the test, as returned by `sweep.run`.

    Returns:
      A dictionary with these entries:
      base_learning_rate: Where the accuracy has risen by a tenth of its total rise.
      max_learning_rate: Where the accuracy peaks, before it falls or levels off.
      steepest_learning_rate: Where the loss falls fastest with the log of the learning rate.
      warnings: A list of reasons to doubt these values.

      The learning rates are None if the accuracy does not rise above its noise, or was still rising
      when Ctrl-C ended the test.
    """
    rates = np.array([point.learning_rate for point in points])
    measured = np.array([point.accuracy for point in points])
    accuracy = smooth(measured)
    loss = smooth([point.loss for point in points])
    top = int(np.argmax(accuracy))
    half = len(points) // 20
    noise = 1e-9
    if half:  # standard error of a mean of 2 half + 1 points, from neighbors' differences
        noise += np.std(np.diff(measured)) / math.sqrt(2 * (2 * half + 1))
    is_at_end = top >= len(points) - 1 - half
    refusal = None
    if accuracy[top] - accuracy[0] <= 8 * noise:
        refusal = "the accuracy does not rise: try other learning rates or more epochs"
    elif is_at_end and ended_by == "Ctrl-C":
        refusal = "the accuracy was still rising when the test was interrupted: let it finish"
    if refusal:
        names = ("base_learning_rate", "max_learning_rate", "steepest_learning_rate")
        return dict.fromkeys(names) | {"warnings": [refusal]}
    warnings = []
    if is_at_end:
        warnings.append("the accuracy peaks at the end of the test: try a larger --to")
    if not half:
        warnings.append(
            f"there are only {len(points)} points, so the learning rates are rough estimates"
        )
    threshold = accuracy[0] + 0.1 * (accuracy[top] - accuracy[0])
    below = np.flatnonzero(accuracy[: top + 1] <= threshold)
    base = int(below[-1]) if len(below) else 0
    slope = np.gradient(loss, np.log(rates))
    steepest = int(np.argmin(slope[: max(int(np.argmin(loss)), 1) + 1]))
    return {
        "base_learning_rate": float(rates[base]),
        "max_learning_rate": float(rates[top]),
        "steepest_learning_rate": float(rates[steepest]),
        "warnings": warnings,
    }


def fields_for(config: ConfigDict, suggested: dict[str, Any]) -> dict[str, str | float]:
    """Returns the fields of config.optim that train with triangular2 between suggested values."""
    fields = {
        "schedule": "triangular2",
        "base_learning_rate": float(f"{suggested['base_learning_rate']:.3g}"),
        "learning_rate": float(f"{suggested['max_learning_rate']:.3g}"),
        "half_cycle_epochs": 4.0,
    }
    # Reset fields of the config's own schedule that conflict with this one.
    for name in ("warmup_epochs", "decay", "final_learning_rate"):
        if config.optim[name]:
            fields[name] = 0.0
    return fields


def flags_for(fields: dict[str, str | float]) -> str:
    """Returns fields of config.optim as flags."""
    values = {k: v if isinstance(v, str) else f"{v:.3g}" for k, v in fields.items()}
    return " ".join(f"--config.optim.{name}={value}" for name, value in values.items())
