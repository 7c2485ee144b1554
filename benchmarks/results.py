"""Reads the logs of training runs and compares them with the published results.

A log consists of results/accuracy/<experiment>/<run>/{config.json,metrics.csv,summary.json}, which
`benchmarks.accuracy` copies from a workdir.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import harness
from benchmarks.harness import ROOT
from benchmarks.published import PUBLISHED
from cifar_jax import config
from cifar_jax.report import published as publications
from cifar_jax.report.published import Published, why_not_comparable
from cifar_jax.run.workdir import what_counts


class Log(NamedTuple):
    """The log of one training run.

    Attributes:
      folder: The directory of the log.
      settings: The config fields that determine the result, flattened: {"optim.name": "adam", ...}.
        They exclude the seed and the fields that only affect where and how fast the run trains.
      summary: The contents of its summary.json.
    """

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]


class Row(NamedTuple):
    """Runs that differ only in their seed, together with the published result.

    Attributes:
      experiment: The id of the experiment.
      published: The result in the write-up; all fields are empty for this suite's own configs.
      changed: The settings that differ from the config file, as "name=value".
      num_epochs: The number of epochs in the config file.
      logs: The logs of the runs, ordered by path; empty if there was no run.
    """

    experiment: str
    published: Published
    changed: tuple[str, ...]
    num_epochs: int
    logs: tuple[Log, ...]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy of each run, as fractions."""
        return [log.summary["test_accuracy"] for log in self.logs]

    @property
    def difference(self) -> float | None:
        """The mean measured minus the published accuracy, or None if they are not comparable."""
        if self.reason:
            return None
        return statistics.mean(self.accuracies) - self.published.test_accuracy

    @property
    def reason(self) -> str:
        """Why the measured and published results are not comparable; "" if they are."""
        if not self.logs:
            return "not run yet"
        num_epochs = self.logs[0].settings["num_epochs"]
        return why_not_comparable(self.published, self.changed, num_epochs, self.num_epochs)


def load_config(experiment: str) -> ConfigDict:
    """Returns an experiment's config, completed with the options of its network."""
    return config.load_complete(ROOT / "configs" / f"{experiment}.py")


def settings_of(experiment: str) -> dict[str, Any]:
    """Returns every field of an experiment's config file, flattened, as JSON values."""
    return config.flatten_json(load_config(experiment))


def rows(folder: Path | None = None) -> list[Row]:
    """Returns the rows of all published experiments and all others that have logs, sorted by id.

    Args:
      folder: The directory of the logs; benchmarks/results/accuracy by default.
    """
    logs = defaultdict(lambda: defaultdict(list))
    for path in sorted((folder or harness.RESULTS / "accuracy").rglob("summary.json")):
        summary = json.loads(path.read_text())
        experiment = summary["experiment"]
        logged = config.flatten(json.loads((path.parent / "config.json").read_text()))
        # A field that was added after the log was written had its default value.
        settings = what_counts(settings_of(experiment) | logged)
        device = [summary["device"][field] for field in ("kind", "count")]
        key = json.dumps([settings, device], sort_keys=True)
        logs[experiment][key].append(Log(path.parent, settings, summary))
    result = []
    for experiment in sorted(PUBLISHED.keys() | logs.keys()):
        groups = logs.get(experiment, {"": []})
        result += [_row(experiment, groups[key]) for key in sorted(groups)]
    return result


def _row(experiment: str, logs: list[Log]) -> Row:
    written = settings_of(experiment)
    changed = publications.changed(logs[0].settings, written) if logs else ()
    published = PUBLISHED.get(experiment, Published())
    return Row(experiment, published, changed, written["num_epochs"], tuple(logs))


def percent(fractions: list[float]) -> str:
    """Formats the mean in percent, followed by the standard deviation if there are several runs."""
    mean = f"{100 * statistics.mean(fractions):.2f}%"
    if len(fractions) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(fractions):.2f} ({len(fractions)} runs)"
