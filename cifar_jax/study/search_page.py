"""Builds the page of a search: charts, and a table of all trials."""

import collections
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cifar_jax.report import figures
from cifar_jax.report.page import Chart, duration, render
from cifar_jax.study import charts, result
from cifar_jax.study.charts import Point
from cifar_jax.study.worker import Search

_TEMPLATES = Path(__file__).parent / "templates"


def of_search(search: Search, command: str | None) -> str:
    """Returns the page of a search as HTML.

    Args:
      search: The search.
      command: The command that trains the winner, or None if no trial is complete.
    """
    trials = search.trials
    metric = search.trial_config.selected_by
    points = [_point(search, t, metric) for t in trials if t.state.is_finished()]
    context = {
        "title": f"Search: {search.config.experiment}",
        "headline": _headline(search, trials, metric),
        "command": command,
        "charts": _charts(search, points, metric),
        "slices": _slices(search, points, metric),
        "parameters": [p.name for p in search.space],
        "rows": [_row(search, t, metric) for t in trials],
        "metric": metric_name(metric),
        "settings": _settings(search),
    }
    return render("search.html", context, _TEMPLATES)


def metric_name(metric: str) -> str:
    """Returns what trials are compared by, such as "validation top-5 accuracy"."""
    return "validation " + metric.replace("_", " ").replace("top5", "top-5")


def _label(metric: str) -> str:
    return f"{metric_name(metric)} ({'nats' if metric == 'loss' else '%'})"


def _point(search: Search, trial: FrozenTrial, metric: str) -> Point:
    value = trial.value
    shown = None if value is None else -value if metric == "loss" else 100 * value
    is_complete = trial.state == TrialState.COMPLETE
    return Point(trial.number, shown, is_complete, search.values(trial))


def _headline(search: Search, trials: list[FrozenTrial], metric: str) -> list[tuple[str, str, str]]:
    """Returns (name, value, remark) of each number at the top of the page."""
    counts = collections.Counter(
        result.state_name(t.state, t.user_attrs.get("error", "")) for t in trials
    )
    states = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    seconds = sum(t.user_attrs.get("seconds", 0.0) for t in trials)
    headline = [
        ("trials", f"{sum(t.state.is_finished() for t in trials)} of {search.num_trials}", states),
        ("training time", duration(seconds), "summed over all trials, excluding compilation"),
    ]
    best = result.best_of(trials)
    if best is not None:
        shown = result.format_value(best.value, metric)
        headline.insert(0, (f"best {metric_name(metric)}", shown, f"trial {best.number}"))
    return headline


def _charts(search: Search, points: list[Point], metric: str) -> list[Chart]:
    is_loss, label = metric == "loss", _label(metric)
    shown = []
    if any(p.shown is not None for p in points):
        figure = charts.history(points, label, lower_is_better=is_loss)
        text = f"{label} of {len(points)} trials, and the best one so far"
        shown.append(Chart("History", figures.svg(figure, "history"), text))
    shares = _importances(search, points)
    if shares:
        text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        shown.append(
            Chart("Importances", figures.svg(charts.importances(shares), "importances"), text)
        )
    if any(p.is_complete for p in points):
        figure = charts.parallel(points, search.space, label, lower_is_better=is_loss)
        text = "Every complete trial as a line through its values; better trials are darker"
        # At this width, a point (1/72 inch) is a pixel and a rem is 16 pixels.
        width = 72 * charts.PARALLEL_INCHES * (len(search.space) + 2) / 16
        image = figures.svg(figure, "parallel")
        shown.append(Chart("Parallel coordinates", image, text, is_wide=True, min_width=width))
    return shown


def _slices(search: Search, points: list[Point], metric: str) -> list[Chart]:
    label = _label(metric)
    if not any(p.shown is not None for p in points):
        return []
    return [
        Chart(p.name, figures.svg(charts.slices(points, p, label), p.name), f"{label} by {p.name}")
        for p in search.space
    ]


def _importances(search: Search, points: list[Point]) -> dict[str, float]:
    """Returns each parameter's PED-ANOVA importance, normalized to a sum of 1; {} if unknown."""
    if len({p.shown for p in points if p.is_complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(search.study, evaluator=evaluator)


def _row(search: Search, trial: FrozenTrial, metric: str) -> dict[str, Any]:
    """Returns a row of the table; unknown values are None."""
    value, attributes = trial.value, trial.user_attrs
    values = search.values(trial)
    return {
        "number": trial.number,
        "state": result.state_name(trial.state, attributes.get("error", "")),
        "value": None if value is None else abs(value),
        "shown": "" if value is None else result.format_value(value, metric),
        "epochs": attributes.get("epochs"),
        "seconds": attributes.get("seconds"),
        "values": [
            (name, values[name], result.format_parameter(values[name])) if name in values else None
            for name in (p.name for p in search.space)
        ],
        "error": attributes.get("error", ""),
    }


def _settings(search: Search) -> list[tuple[str, str]]:
    config = search.trial_config
    names = ("sampler", "pruner", "min_epochs", "num_trials")
    shown = [(f"search.{name}", str(config.search[name])) for name in names]
    shown += [("data.val_fraction", str(config.data.val_fraction))]
    shown += [("selected_on", config.selected_on), ("selected_by", config.selected_by)]
    ranges = {"choice": "{%s}", "uniform": "uniform(%s)", "log": "log(%s)", "int": "int(%s)"}
    return shown + [(p.name, ranges[p.kind] % ", ".join(map(repr, p.values))) for p in search.space]
