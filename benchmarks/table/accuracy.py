"""Builds the tables of accuracies; runs with equal settings on one kind of device share a row."""

import functools
import json
import math
import statistics

import jax
from flax import nnx

from benchmarks.harness import ROOT
from benchmarks.results import Row, percent, points, rows, settings_of
from benchmarks.table.markdown import device, table
from cifar_jax import data, models
from cifar_jax.models.rngs import make_rngs
from cifar_jax.report.page import milliseconds

# The (commit, device) pairs of logs that were written while nine runs shared one GPU through
# NVIDIA's MPS, which lengthens their step times. Newer logs say how many runs shared a device.
_SHARED_GPU = {("fa6179f", "NVIDIA H100 80GB HBM3")}
_ALL_TITLES = (
    *("experiment", "published", "measured", "runs", "difference", "epochs"),
    *("epoch selected on", "step time", "parameters", "device", "logs by seed"),
)


def overview() -> str:
    """Returns a short table of the measured and published accuracy of the complete runs.

    Each experiment has one row: that of the kind of device with the most runs.
    """
    most_runs: dict[str, Row] = {}
    for row in _complete_rows():
        if len(row.logs) > len(most_runs.setdefault(row.experiment, row).logs):
            most_runs[row.experiment] = row
    titles = ("experiment", "published", "measured", "runs", "difference", "epoch selected on")
    return _accuracy_table(list(most_runs.values()), (*titles, "device"))


def complete() -> str:
    """Returns the table of complete runs with all columns."""
    return _accuracy_table(_complete_rows(), _ALL_TITLES)


def shortened() -> str:
    """Returns the table of runs whose epochs or other settings differ from their config file."""
    chosen = [row for row in rows() if row.logs and not row.is_complete]
    return _accuracy_table(chosen, _ALL_TITLES)


def not_run() -> str:
    """Returns the table of experiments without a logged complete run."""
    all_rows = rows()
    done = {row.experiment for row in all_rows if row.is_complete}
    missing = {row.experiment: row for row in all_rows if row.experiment not in done}
    titles = ("experiment", "published", "epochs", "parameters")
    return table(
        titles,
        [
            (
                _experiment_link(row.experiment),
                _published(row),
                str(row.num_epochs),
                f"{_num_params(row.experiment):,}",
            )
            for row in missing.values()
        ],
    )


def comparable() -> list[Row]:
    """Returns the rows whose measured accuracy can be compared with the published one."""
    return [row for row in rows() if row.difference is not None]


def _complete_rows() -> list[Row]:
    """Returns the rows of complete runs."""
    return [row for row in rows() if row.is_complete]


def _accuracy_table(chosen: list[Row], titles: tuple[str, ...]) -> str:
    cells = map(_accuracy_cells, chosen)
    return table(titles, [tuple(c[title] for title in titles) for c in cells])


def _accuracy_cells(row: Row) -> dict[str, str]:
    """Returns the cells of a row that has logs, by column title."""
    first = row.logs[0].summary
    step_time = statistics.median(log.summary["step_time_ms"]["median"] for log in row.logs)
    mark = " (shared GPU)" if any(_shared_gpu(log.summary) for log in row.logs) else ""
    links = [
        f"[{log.summary['seed']}]({log.folder.relative_to(ROOT).as_posix()})" for log in row.logs
    ]
    return {
        "experiment": " ".join(
            [_experiment_link(row.experiment), *(f"`{setting}`" for setting in row.changed)]
        ),
        "published": _published(row),
        "measured": percent(row.accuracies),
        "runs": row.num_runs,
        "difference": points(row),
        "epochs": _epochs(row),
        "epoch selected on": first["selected_on"],
        "step time": milliseconds(step_time) + mark,
        "parameters": f"{_num_params(row.experiment):,}",
        "device": "; ".join(sorted({device(log.summary) for log in row.logs})),
        "logs by seed": " ".join(links),
    }


def _experiment_link(experiment: str) -> str:
    return f"[{experiment}](configs/{experiment}.py)"


def _published(row: Row) -> str:
    """Returns the published accuracy as the write-up rounds it, or what it says instead."""
    published = row.published.test_accuracy
    return row.published.other if published is None else f"{100 * published:.10g}%"


def _shared_gpu(summary: dict) -> bool:
    """Returns whether other runs trained on the GPU at the same time."""
    device = summary["device"]
    if device.get("platform") == "gpu" and summary.get("runs_on_device", 1) > 1:
        return True
    return (summary.get("git_commit"), device["kind"]) in _SHARED_GPU


def _epochs(row: Row) -> str:
    """Returns the epochs of a row's runs and, if different, of the config file."""
    planned = row.logs[0].settings["num_epochs"]
    done = sorted({log.summary["epochs"] for log in row.logs})
    text = str(planned) if planned == row.num_epochs else f"{planned} of {row.num_epochs}"
    return text if done == [planned] else f"{text}, stopped after {', '.join(map(str, done))}"


def _num_params(experiment: str) -> int:
    """Counts the parameters of an experiment's network from its shapes."""
    settings = settings_of(experiment)
    num_classes = data.num_classes(settings["data.name"], settings["data.label"])
    options = {k[6:]: v for k, v in settings.items() if k[:6] == "model." and k != "model.name"}
    return _count(settings["model.name"], num_classes, json.dumps(options))


@functools.cache
def _count(model: str, num_classes: int, options: str) -> int:
    def build():
        return models.create(model, num_classes, make_rngs(params=0), **json.loads(options))

    params = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
