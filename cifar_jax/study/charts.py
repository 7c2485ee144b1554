"""Draws the charts of a search as matplotlib figures, in the style of the reports."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cifar_jax.report import figures
from cifar_jax.study.result import format_parameter
from cifar_jax.study.space import Parameter

# Width of the parallel coordinates chart per axis, in inches.
PARALLEL_INCHES = 1.15
_MAP = mpl.colormaps["viridis"]


class Point(NamedTuple):
    """A finished trial.

    Attributes:
      number: The number of the trial.
      shown: The validation metric, as a percentage or a loss; None if no epoch was evaluated.
      is_complete: Whether it was trained to the end; otherwise `shown` is the metric of the last
        evaluated epoch.
      values: The values of the parameters by name.
    """

    number: int
    shown: float | None
    is_complete: bool
    values: Mapping[str, Any]


@figures.styled
def history(points: Sequence[Point], label: str, *, lower_is_better: bool) -> Figure:
    """Plots the metric of each trial, and the best one so far.

    Args:
      points: The finished trials.
      label: The label of the metric.
      lower_is_better: Whether the metric is a loss.
    """
    figure = figures.new()
    axes = figure.subplots()
    for is_complete, marker, color, name in (
        (True, "o", figures.COLORS[0], "complete"),
        (False, "x", "#777777", "pruned, last epoch"),
    ):
        chosen = [p for p in points if p.is_complete == is_complete and p.shown is not None]
        if chosen:
            axes.plot(
                [p.number for p in chosen], [p.shown for p in chosen], marker, color=color,
                label=name,
            )  # fmt: skip
    complete = [p for p in points if p.is_complete]
    best = (np.minimum if lower_is_better else np.maximum).accumulate([p.shown for p in complete])
    if complete:
        last = max(p.number for p in points)
        axes.step(
            [*(p.number for p in complete), last], [*best, best[-1]], where="post", lw=2,
            color=figures.COLORS[1], label="best so far",
        )  # fmt: skip
    axes.set(xlabel="trial", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


@figures.styled
def importances(shares: Mapping[str, float]) -> Figure:
    """Plots the importance of each parameter, in descending order.

    Args:
      shares: The importances by name, which add up to 1.
    """
    names = sorted(shares, key=shares.get, reverse=True)
    figure = figures.new((5.2, 1.0 + 0.34 * len(names)))
    axes = figure.subplots()
    axes.barh(range(len(names)), [100 * shares[n] for n in names], color=figures.COLORS[5])
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel="importance (%)", xlim=(0, 100))
    axes.grid(axis="y", visible=False)
    return figure


@figures.styled
def slices(points: Sequence[Point], parameter: Parameter, label: str) -> Figure:
    """Plots the metric against the values of one parameter.

    Args:
      points: The finished trials.
      parameter: The parameter.
      label: The label of the metric.
    """
    figure = figures.new()
    axes = figure.subplots()
    scale = _Scale(parameter)
    for is_complete, marker, color in ((False, "x", "#777777"), (True, "o", figures.COLORS[0])):
        chosen = [p for p in points if p.is_complete == is_complete and p.shown is not None]
        chosen = [p for p in chosen if parameter.name in p.values]
        at = np.array([scale.at(p.values[parameter.name]) for p in chosen])
        if scale.labels:
            # All trials with the same choice share a position, so they are spread out in order.
            at = at + np.linspace(-0.15, 0.15, len(at))
        axes.plot(at, [p.shown for p in chosen], marker, color=color, alpha=0.8)
    if scale.labels:
        axes.set_xticks(range(len(scale.labels)), scale.labels)
        axes.set_xlim(-0.5, len(scale.labels) - 0.5)
        if sum(map(len, scale.labels)) > 40:
            axes.tick_params(axis="x", rotation=30, labelsize=8)
    elif parameter.is_log:
        axes.set_xscale("log")
    axes.set(xlabel=parameter.name, ylabel=label)
    return figure


@figures.styled
def parallel(
    points: Sequence[Point], space: Sequence[Parameter], label: str, *, lower_is_better: bool
) -> Figure:
    """Plots every complete trial as a line through its values, as a wide figure.

    Args:
      points: The finished trials.
      space: The parameters, one axis each; the last axis is the metric.
      label: The label of the metric.
      lower_is_better: Whether the metric is a loss.
    """
    points = [p for p in points if p.is_complete and len(p.values) == len(space)]
    shown = np.array([p.shown for p in points])
    low, high = shown.min(), shown.max()
    heights = (shown - low) / (high - low) if high > low else np.full(len(points), 0.5)
    scales = [_Scale(parameter) for parameter in space]
    figure = figures.new((PARALLEL_INCHES * (len(space) + 2), 4.2))
    axes = figure.subplots()
    # The best trials are drawn last, over the others.
    goodness = 1 - heights if lower_is_better else heights
    for i in np.argsort(goodness, kind="stable"):
        values = [s.height(points[i].values[p.name]) for s, p in zip(scales, space, strict=True)]
        axes.plot(
            [*values, heights[i]], color=_MAP(0.92 * (1 - goodness[i])), lw=1.6, alpha=0.85
        )  # fmt: skip
    for x, scale in enumerate(scales):
        for value, text in scale.ticks():
            axes.text(x + 0.03, value, text, fontsize=9, va="center", bbox=_BACK)
    for share in (0, 0.5, 1):
        text = f"{low + share * (high - low):.4g}"
        axes.text(len(space) + 0.03, share, text, fontsize=9, va="center", bbox=_BACK)
    names = [*(_broken(p.name) for p in space), label]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.1, len(space) + 0.45))
    axes.grid(axis="x", color="#444444", alpha=0.8)
    axes.spines["left"].set_visible(False)
    return figure


_BACK = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.8}


def _broken(name: str) -> str:
    """Breaks a field's name into two lines, so that neighboring names do not overlap."""
    return name.replace(".", ".\n", 1)


class _Scale:
    """The positions of a parameter's values on an axis.

    Attributes:
      labels: The choices as text; empty for a range.
    """

    def __init__(self, parameter: Parameter):
        self._parameter = parameter
        is_choice = parameter.kind == "choice"
        self._choices = _ordered(parameter.values) if is_choice else []
        self.labels = [format_parameter(value) for value in self._choices]

    def at(self, value: Any) -> float:
        """Returns a value's coordinate: its index if it is a choice, otherwise itself."""
        if not self.labels:
            return value
        return next(i for i, c in enumerate(self._choices) if type(c) is type(value) and c == value)

    def height(self, value: Any) -> float:
        """Returns a value's position between 0 and 1."""
        if self.labels:
            return (self.at(value) + 0.5) / len(self.labels)
        return self._share(value)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns positions between 0 and 1 with their labels."""
        if self.labels:
            return [((i + 0.5) / len(self.labels), t) for i, t in enumerate(self.labels)]
        ends = self._parameter.values
        middle = math.sqrt(ends[0] * ends[1]) if self._parameter.is_log else sum(ends) / 2
        return [(self._share(v), f"{v:.3g}") for v in (ends[0], middle, ends[1])]

    def _share(self, value: float) -> float:
        low, high = self._parameter.values
        if self._parameter.is_log:
            low, high, value = map(math.log, (low, high, value))
        return (value - low) / (high - low)


def _ordered(choices: Sequence[Any]) -> list[Any]:
    """Returns choices in ascending order if they are numbers, otherwise as they are."""
    is_numeric = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
    return sorted(choices) if is_numeric else list(choices)
