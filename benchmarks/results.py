"""Reads the logs of training runs and compares them with the published results.

A log consists of config.json, metrics.csv and summary.json in results/accuracy/<experiment>/<run>/,
which `benchmarks.accuracy` copies from a workdir.
"""

import functools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from scipy.special import stdtrit  # jax depends on SciPy

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
    """Runs of one experiment on one kind of device, together with the published result.

    They have equal settings, but may differ in their seed, machine, versions and commit. Runs with
    the same seed are separate samples unless they are exact repetitions: rounding differs between
    machines and versions, and training amplifies the difference.

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
    def num_runs(self) -> str:
        """The number of runs and, if some share a seed, of seeds: "5 runs (4 seeds)"."""
        runs, seeds = len(self.logs), len({log.summary["seed"] for log in self.logs})
        text = "1 run" if runs == 1 else f"{runs} runs"
        return text if seeds == runs else f"{text} ({seeds} seed{'s' * (seeds > 1)})"

    @property
    def difference(self) -> float | None:
        """The mean measured minus the published accuracy, or None if they are not comparable."""
        if self.reason:
            return None
        return statistics.mean(self.accuracies) - self.published.test_accuracy

    @property
    def is_complete(self) -> bool:
        """Whether there are runs, and the config file describes them, up to the last epoch."""
        if not self.logs or self.changed:
            return False
        return self.logs[0].settings["num_epochs"] == self.num_epochs

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


@functools.cache
def settings_of(experiment: str) -> Mapping[str, Any]:
    """Returns every field of an experiment's config file, flattened, as JSON values.

    The file is run once per process; a table asks for it a hundred times.
    """
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
        # A field that was added after the log was written is taken from the config file.
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
    return Row(experiment, published, changed, written["num_epochs"], _distinct(logs))


def _distinct(logs: list[Log]) -> tuple[Log, ...]:
    """Returns logs without exact repetitions, which add no information.

    On one machine and with one version, a seed gives bitwise the same result, whereas a difference
    in rounding, as between machines of a kind, changes the loss.
    """
    first = {}
    fields = ("seed", "test_accuracy", "test_loss")
    for log in logs:
        same = json.dumps([log.summary.get(field) for field in fields], sort_keys=True)
        first.setdefault(same, log)
    return tuple(first.values())


def percent(fractions: list[float]) -> str:
    """Formats accuracies: "51.00%", or with several "51.00% ± 1.41 (38.29 to 63.71)".

    These are the mean, the standard deviation and the 95% confidence interval of the mean.
    """
    mean = statistics.mean(fractions)
    if len(fractions) == 1:
        return f"{mean:.2%}"
    margin = margin_of_error(fractions)
    low, high = max(mean - margin, 0), min(mean + margin, 1)
    deviation = statistics.stdev(fractions)
    return f"{mean:.2%} ± {100 * deviation:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def points(row: Row) -> str:
    """Formats the difference from the published accuracy, or why there is none.

    "+2.17" is in percentage points; with several runs, "+2.17 (-0.44 to +4.78)" includes its 95%
    confidence interval, which treats the published accuracy as exact.
    """
    if row.difference is None:
        return row.reason
    text = f"{100 * row.difference:+.2f}"
    if len(row.logs) == 1:
        return text
    margin = margin_of_error(row.accuracies)
    low, high = row.difference - margin, row.difference + margin
    return f"{text} ({100 * low:+.2f} to {100 * high:+.2f})"


def margin_of_error(values: list[float]) -> float:
    """Returns half the width of the 95% confidence interval of the mean, by Student's t.

    Args:
      values: Two or more independent samples of a normal distribution.
    """
    quantile = float(stdtrit(len(values) - 1, 0.975))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
