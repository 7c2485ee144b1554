"""The logs of training runs in benchmarks/results/accuracy, as rows beside what was published.

A log is results/accuracy/<experiment>/<run>/{config.json,metrics.csv,summary.json}, copied from a
workdir by `benchmarks.accuracy`.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks.published import PUBLISHED
from cifar_jax import config
from cifar_jax.report import published as publications
from cifar_jax.report.published import Published, what_counts, why_not_comparable

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


class Log(NamedTuple):
    """One run.

    Attributes:
      folder: of the log.
      settings: the fields of its config that say what comes out, flat: {"optim.name": "adam", ...};
        neither the seed nor where and how fast it ran.
      summary: the content of its summary.json.
    """

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]


class Row(NamedTuple):
    """Runs that differ in nothing but their seed, beside the published number.

    Attributes:
      experiment: its id.
      published: what the write-up says; nothing for configs of the suite's own.
      changed: settings that the config file has otherwise, "name=value".
      num_epochs: of the config file.
      logs: by seed; empty where nothing was run.
    """

    experiment: str
    published: Published
    changed: tuple[str, ...]
    num_epochs: int
    logs: tuple[Log, ...]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy of each run, fractions."""
        return [log.summary["test_accuracy"] for log in self.logs]

    @property
    def difference(self) -> float | None:
        """Mean measured minus published accuracy, a fraction; None where `reason` says why."""
        if self.reason:
            return None
        return statistics.mean(self.accuracies) - self.published.test_accuracy

    @property
    def reason(self) -> str:
        """Why measured and published cannot be compared; "" where they can."""
        if not self.logs:
            return "not run yet"
        num_epochs = self.logs[0].settings["num_epochs"]
        return why_not_comparable(self.published, self.changed, num_epochs, self.num_epochs)


def load_config(experiment: str) -> ConfigDict:
    """Returns an experiment's config, its network's options filled in."""
    written = config.load(ROOT / "configs" / f"{experiment}.py")
    config.choose_model(written, written.model.name)
    return written


def settings_of(experiment: str) -> dict[str, Any]:
    """Returns every field of an experiment's config file, flat, as JSON has them."""
    return publications.settings_of(ROOT / "configs" / f"{experiment}.py")


def rows(folder: Path | None = None) -> list[Row]:
    """Returns a row for every published experiment, and every other that has logs, by id.

    Args:
      folder: of the logs; benchmarks/results/accuracy by default.
    """
    found = defaultdict(lambda: defaultdict(list))
    for path in sorted((folder or RESULTS / "accuracy").rglob("summary.json")):
        summary = json.loads(path.read_text())
        experiment = summary["experiment"]
        logged = config.flatten(json.loads((path.parent / "config.json").read_text()))
        # A field that is younger than the log had its default.
        same = what_counts(settings_of(experiment) | logged)
        device = [summary["device"][field] for field in ("kind", "count")]
        key = json.dumps([same, device], sort_keys=True)
        found[experiment][key].append(Log(path.parent, same, summary))
    result = []
    for experiment in sorted(PUBLISHED.keys() | found.keys()):
        groups = found.get(experiment, {"": []})
        result += [_row(experiment, groups[key]) for key in sorted(groups)]
    return result


def _row(experiment: str, logs: list[Log]) -> Row:
    written = settings_of(experiment)
    changed = publications.changed(logs[0].settings, written) if logs else ()
    published = PUBLISHED.get(experiment, Published())
    return Row(experiment, published, changed, written["num_epochs"], tuple(logs))


def percent(fractions: list[float]) -> str:
    """Returns the mean in percent, with the standard deviation of several runs."""
    mean = f"{100 * statistics.mean(fractions):.2f}%"
    if len(fractions) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(fractions):.2f} ({len(fractions)} seeds)"
