"""Small searches for tests: a tiny network, or training that is only simulated."""

import csv

import jax
import pytest
import tiny

pytest.importorskip("optuna")  # skips the tests that import this module

from cifar_jax import engine
from cifar_jax.run import workdir
from cifar_jax.study import worker
from cifar_jax.study.ownership import Timing

# Values that no test waits for.
QUICK = Timing(interval=0.05, timeout=0.5)
SPACE = "optim.learning_rate in log(1e-4, 1e-1); seed in int(0, 9); batch_size in {16, 32}"


def make_config(space=SPACE, **overrides):
    """Returns the config of a small search; overrides are fields with "__" instead of a dot."""
    defaults = dict(
        data__val_fraction=0.1,
        selected_on="val",
        search__space=space,
        search__num_trials=3,
        search__sampler="random",
        search__pruner="none",
        search__min_epochs=1,
    )
    return tiny.make_config(**defaults | overrides)


class Console:
    """Records what a worker shows."""

    def __init__(self):
        self.ended, self.lost, self.epochs = [], [], []

    def update(self, trials, num_trials):
        pass

    def begin(self, number, num_epochs):
        pass

    def epoch(self, epoch, value):
        self.epochs.append((epoch, value))

    def wait(self):
        pass

    def lose(self, number):
        self.lost.append(number)

    def end(self, number, values, outcome):
        self.ended.append((number, values, outcome))


def run(config, folder, *, storage=None, timing=QUICK):
    """Runs one worker to the end of a search; returns the search and what the worker showed."""
    search, console = worker.open_search(config, folder, storage), Console()
    mesh = engine.make_mesh(jax.devices()[:1])
    worker.work(search, console, timing=timing, mesh=mesh)
    return search, console


def simulate(monkeypatch, accuracy, before_epoch=lambda config, epoch: None):
    """Replaces training: no network is built, and epochs have the given accuracies.

    Args:
      monkeypatch: The fixture.
      accuracy: Maps the config and the epoch to the validation accuracy.
      before_epoch: Called with these at the start of every epoch; may raise an exception.
    """

    def train(config, folder, *, writers, **_):
        rows = []
        with workdir.locked(folder):
            for epoch in range(1, config.num_epochs + 1):
                writers[0].progress(epoch, 1, {}, 0.0)
                before_epoch(config, epoch)
                value = accuracy(config, epoch)
                row = {"epoch": epoch, "step": epoch, "val_accuracy": value, "val_loss": 1 - value}
                rows.append(row | {"seconds": 2.0, "train_loss": 1.0})
                with (folder / "metrics.csv").open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                writers[0].epoch(rows[-1])
        return {"best_epoch": max(rows, key=lambda row: row["val_accuracy"])["epoch"]}

    monkeypatch.setattr("cifar_jax.study.trial.train", train)
    monkeypatch.setattr("cifar_jax.experiment.load_data", lambda config: None)


def states(search):
    """Returns the names of the states of all trials of a study, those that do not count too."""
    return [t.state.name for t in search.study.get_trials()]
