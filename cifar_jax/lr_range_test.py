"""The front door of the learning rate range test (Smith, 2017).

    python -m cifar_jax.lr_range_test --config configs/cnn3.py --workdir runs/range_test

Trains with a rate that grows by a constant factor from step to step, from --from to --to, through
--epochs epochs, and stops where the loss diverges, or at Ctrl-C. The workdir gets range_test.csv,
range_test.json and range_test.png; printed are the base and the greatest rate that Smith reads off
the accuracy, the rate at which the loss falls the steepest, and the flags that train with them.
With --by epoch the rate stays through each epoch, and accuracy is that on the validation split (on
the test set without one). Fields of the config are set as in training; its own schedule, rate and
epochs do not matter. Without --workdir the files go to runs/<experiment>/range_test.
"""

import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cifar_jax.config import command_line
from cifar_jax.errors import UserError

# Points of the curve where the rate grows with every step.
_NUM_POINTS = 200
# Fewer say nothing.
_LEAST_POINTS = 4
# Where the loss (smoothed, where the rate grows by step) is so many times its least, it diverges.
_DIVERGED = 4.0
# What --epochs is by default.
_EPOCHS = {"step": 3, "epoch": 25}


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


def main(argv: list[str]) -> int:
    """Parses the command line, tests, writes the files, and returns the exit code."""
    try:
        config, values = command_line.parse(argv, __doc__, _define)
        folder = Path(values.workdir or Path("runs") / config.experiment / "range_test")
        lowest, highest = values["from"].value, values["to"].value
        if not 0 < lowest < highest < math.inf:
            raise UserError(f"--from and --to need 0 < from < to, not {lowest} and {highest}")
        num_epochs = _EPOCHS[values.by] if values.epochs is None else values.epochs
        least = _LEAST_POINTS if values.by == "epoch" else 1
        if num_epochs < least:
            raise UserError(
                f"--epochs needs {least} or more with --by={values.by}, not {num_epochs}"
            )
        from cifar_jax.run import workdir
        from cifar_jax.runtime import compilation_cache
        from cifar_jax.runtime.signals import catch_signals, leave_at_once

        leave_at_once()
        compilation_cache.use_users_folder()
        with workdir.locked(folder):
            if (folder / "config.json").exists():
                raise UserError(f"a training lies in --workdir {folder}: choose another")
            by_epoch = values.by == "epoch"
            points, ended_by = run(config, lowest, highest, num_epochs, by_epoch=by_epoch)
            asked = {"from": lowest, "to": highest, "epochs": num_epochs, "by": values.by}
            with catch_signals():  # a second Ctrl-C does not tear the files
                report(config, points, folder, asked | {"ended_by": ended_by})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_float("from", 1e-5, "first rate", flag_values=values)
    flags.DEFINE_float("to", 1.0, "last rate", flag_values=values)
    flags.DEFINE_integer(
        "epochs", None, "from the first to the last rate; 3, by epoch 25", flag_values=values
    )
    kinds = ["step", "epoch"]
    flags.DEFINE_enum("by", "step", kinds, "when the rate grows: step or epoch", flag_values=values)


def run(
    config: ConfigDict, lowest: float, highest: float, num_epochs: int, *, by_epoch: bool = False
) -> tuple[list[Point], str]:
    """Trains with a growing rate until it is over, the loss has diverged, or Ctrl-C.

    Args:
      config: with the fields of cifar_jax/config/base.py.
      lowest: rate of the first step.
      highest: rate of the last step.
      num_epochs: from the one to the other.
      by_epoch: whether the rate stays through each epoch.

    Returns:
      The points, and what ended the test: "rate" (the last is reached), "divergence" or "Ctrl-C".

    Raises:
      UserError: for a wrong config, or where there is no curve yet when the test ends.
    """
    from cifar_jax import experiment
    from cifar_jax.metrics import fetch
    from cifar_jax.runtime.signals import catch_signals

    config = config.copy_and_resolve_references()
    config.num_epochs = num_epochs
    config.optim.warmup_epochs = 0.0
    experiment.check(config)
    exp = experiment.create(
        experiment.resolved(config), make_schedule=growth(lowest, highest, num_epochs, by_epoch)
    )
    engine = exp.engine
    total = num_epochs * engine.steps_per_epoch
    if total < _LEAST_POINTS:
        raise UserError(f"{total} steps make no curve: raise --epochs, or lower batch_size")
    steps_per_point = engine.steps_per_epoch if by_epoch else max(1, total // _NUM_POINTS)
    steps_per_call = 1 if config.steps_per_call == 1 else steps_per_point
    state, step, points, ended_by = engine.init(), 0, [], "rate"
    tracker, least = _Smooth(0.0 if by_epoch else 0.9), math.inf
    with catch_signals() as stop:
        while step < total and stop.signum is None:
            epoch, done = divmod(step, engine.steps_per_epoch)
            if done == 0:
                plan = engine.plan(state, epoch)
            count = min(steps_per_point, engine.steps_per_epoch - done)
            state, values = _advance(engine, state, plan, count, steps_per_call)
            rates = [float(exp.schedule(i)) for i in (step, step + count - 1)]
            step += count
            if not math.isfinite(values["loss"]):
                ended_by = "divergence"
                break
            accuracy = values["accuracy"]
            if by_epoch:
                accuracy = fetch(exp.evaluate[exp.curve](engine.snapshot(state))[0])["accuracy"]
            points.append(Point(step, math.sqrt(rates[0] * rates[1]), values["loss"], accuracy))
            print(
                f"step {step:>{len(str(total))}}/{total}  rate {points[-1].learning_rate:.2e}  "
                f"loss {values['loss']:.4f}  accuracy {100 * accuracy:.2f}%",
                flush=True,
            )
            smoothed = tracker(values["loss"])
            least = min(least, smoothed)
            if smoothed > _DIVERGED * least:
                ended_by = "divergence"
                break
        if stop.signum is not None:
            ended_by = "Ctrl-C"
    if len(points) < _LEAST_POINTS:
        if ended_by == "divergence":
            way_out = f"begin lower than --from {lowest:g}"
        else:
            way_out = "let it run on"
        raise UserError(f"ended by {ended_by} after {len(points)} points, no curve yet: {way_out}")
    return points, ended_by


def _advance(engine, state, plan, num_steps: int, steps_per_call: int):
    """Takes steps within an epoch; returns the state and the means over the steps."""
    from cifar_jax.metrics import fetch

    metrics = engine.no_metrics()
    for first in range(0, num_steps, steps_per_call):
        count = min(steps_per_call, num_steps - first)
        state, metrics = engine.run(state, metrics, plan, count)
    return state, fetch(engine.snapshot(metrics))


def growth(
    lowest: float, highest: float, num_epochs: int, by_epoch: bool
) -> Callable[[int], Callable]:
    """Returns the maker of the schedule, from the steps of an epoch."""
    import jax.numpy as jnp

    def make(steps_per_epoch: int):
        unit = steps_per_epoch if by_epoch else 1
        last = max(num_epochs * steps_per_epoch // unit - 1, 1)
        factor = (highest / lowest) ** (1 / last)
        return lambda step: lowest * factor ** jnp.floor(step / unit)

    return make


class _Smooth:
    """An exponential mean without the bias of its start; with a `keep` of 0 the latest value."""

    def __init__(self, keep: float):
        self._keep, self._sum, self._weight = keep, 0.0, 0.0

    def __call__(self, value: float) -> float:
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self._weight = self._keep * self._weight + (1 - self._keep)
        return self._sum / self._weight


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


def report(
    config: ConfigDict, points: Sequence[Point], folder: Path, asked: dict[str, Any]
) -> dict[str, Any]:
    """Writes the files, prints the suggestion and returns it; `asked` is for the JSON file."""
    from cifar_jax.run.summary import write_json
    from cifar_jax.runtime.environment import environment

    found = suggest(points, asked["ended_by"])
    has_rates = found["base_learning_rate"] is not None
    line = flags_for(config, found) if has_rates else None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "range_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Point._fields, "smoothed_loss", "smoothed_accuracy"])
        curves = (smooth([p.loss for p in points]), smooth([p.accuracy for p in points]))
        writer.writerows([*point, *map(float, row)] for point, *row in zip(points, *curves))
    plain = json.loads(config.to_json())
    plain["data"]["dir"] = ""  # where the data lay is nobody else's concern
    everything = asked | found | {"flags": line} | environment() | {"config": plain}
    write_json(folder / "range_test.json", everything)
    draw(points, found, config.experiment, folder / "range_test.png")
    if has_rates:
        base, greatest = found["base_learning_rate"], found["max_learning_rate"]
        print(
            f"  base rate              {base:.3g} (accuracy begins to rise)\n"
            f"  greatest rate          {greatest:.3g} (accuracy is at its top)\n"
            f"  steepest fall of loss  {found['steepest_learning_rate']:.3g}\n"
            f"  train with             {line}"
        )
    for warning in found["warnings"]:
        print(f"  warning                {warning}")
    print(f"  results in             {folder}")
    return found


def draw(points: Sequence[Point], found: dict[str, Any], title: str, path: Path) -> None:
    """Draws loss and accuracy against the rate, with what was read off them."""
    from matplotlib.figure import Figure

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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
