"""Reads learning rates off the curve of a range test."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

# Points of a curve; fewer say nothing.
LEAST_POINTS = 4


class Point(NamedTuple):
    """The means over some steps.

    Attributes:
      step: the last of them, counted from 1.
      learning_rate: the geometric mean.
      loss: of training.
      accuracy: of training, a fraction; of the evaluated split where the rate grows by epoch.
    """

    step: int
    learning_rate: float
    loss: float
    accuracy: float


def smooth(values: Sequence[float]) -> np.ndarray:
    """Returns a centred mean over about a tenth of the points; at the ends, of those there are."""
    values = np.asarray(values, np.float64)
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def suggest(points: Sequence[Point], ended_by: str = "rate") -> dict[str, Any]:
    """Reads rates off the smoothed curve.

    Args:
      points: of the curve.
      ended_by: as `run` returns it.

    Returns:
      base_learning_rate: the accuracy has begun to rise, by a tenth of its way to the top.
      max_learning_rate: it is at the top, from where it falls or stands still.
      steepest_learning_rate: the loss falls the fastest, per factor of the rate.
      warnings: a list of what speaks against them. Where the accuracy does not rise beyond its
        noise, or still rose when Ctrl-C ended the test, the rates are None.
    """
    rates = np.array([point.learning_rate for point in points])
    measured = np.array([point.accuracy for point in points])
    accuracy = smooth(measured)
    loss = smooth([point.loss for point in points])
    top = int(np.argmax(accuracy))
    half = len(points) // 20
    noise = 1e-9
    if half:  # of a mean over 2 half + 1 points, from how much neighbours differ
        noise += np.std(np.diff(measured)) / math.sqrt(2 * (2 * half + 1))
    is_at_end = top >= len(points) - 1 - half
    refusal = None
    if accuracy[top] - accuracy[0] <= 8 * noise:
        refusal = "the accuracy does not rise: try other rates, or more epochs"
    elif is_at_end and ended_by == "Ctrl-C":
        refusal = "the accuracy still rose where the test was ended: let it run on"
    if refusal:
        names = ("base_learning_rate", "max_learning_rate", "steepest_learning_rate")
        return dict.fromkeys(names) | {"warnings": [refusal]}
    warnings = []
    if is_at_end:
        warnings.append("the accuracy is at its top where the test ends: try a greater --to")
    if not half:
        warnings.append(f"{len(points)} points are few: take the rates for a hint")
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


def flags_for(config: ConfigDict, found: dict[str, Any]) -> str:
    """Returns the flags that train a config by triangular2 between the rates found."""
    fields = {
        "schedule": "triangular2",
        "base_learning_rate": f"{found['base_learning_rate']:.3g}",
        "learning_rate": f"{found['max_learning_rate']:.3g}",
        "half_cycle_epochs": "4",
    }
    # What belongs to the config's own schedule, and would contradict this one.
    for name in ("warmup_epochs", "decay", "final_learning_rate"):
        if config.optim[name]:
            fields[name] = "0"
    return " ".join(f"--config.optim.{name}={value}" for name, value in fields.items())
