"""Two worker processes share a study, and one of them is killed in the middle of a trial."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import searching
import tiny

from cifar_jax import experiment
from cifar_jax.run import metrics_csv
from cifar_jax.run.storage import saved_steps
from cifar_jax.study import queue, worker

NUM_EPOCHS = 3


def make_config():
    return searching.make_config(search__num_trials=4, num_epochs=NUM_EPOCHS, steps_per_call=1)


def load(cfg):
    return tiny.load(cfg.data.name, val_fraction=cfg.data.val_fraction)


def start(folder, log):
    """Starts a worker process; see the end of this file."""
    command = [sys.executable, "-u", __file__, str(folder)]
    paths = os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": paths}
    return subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=env)


def rows_of(search):
    """Returns the rows of metrics.csv of every trial, without times."""
    paths = [queue.folder_of(search.workdir, t.number) / "metrics.csv" for t in search.trials]
    rows = [metrics_csv.read(path) for path in paths]
    return [[{k: v for k, v in r.items() if "second" not in k} for r in run] for run in rows]


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_continued_and_counted_once(tmp_path, monkeypatch):
    shared, logs = tmp_path / "shared", [tmp_path / "0.txt", tmp_path / "1.txt"]
    processes = [start(shared, log) for log in logs]
    deadline = time.monotonic() + 120
    # The one that trains trial 0 is killed after its first checkpoint.
    owner = shared / "trials/0/.owner.0"
    while not saved_steps(shared / "trials/0/checkpoints"):
        assert time.monotonic() < deadline, [log.read_text() for log in logs]
        time.sleep(0.001)
    killed = int(owner.read_text().split()[1])
    os.kill(killed, signal.SIGKILL)
    (survivor,) = (i for i, process in enumerate(processes) if process.pid != killed)
    assert processes[1 - survivor].wait(60) == -signal.SIGKILL
    assert processes[survivor].wait(120) == 0, logs[survivor].read_text()

    search = worker.open_search(make_config(), shared, None)
    assert searching.states(search) == ["COMPLETE"] * 4
    assert [t.number for t in search.trials] == [0, 1, 2, 3]
    assert all(len(t.intermediate_values) == NUM_EPOCHS for t in search.trials)
    assert (shared / "trials/0/.owner.1").exists()
    assert "resumed at step" in (shared / "trials/0/log.txt").read_text()
    printed = "".join(log.read_text() for log in logs)
    assert sorted(re.findall(r"^ended (\d)", printed, re.MULTILINE)) == [*"0123"]

    # One worker that is not disturbed gets the same trials, values and epochs.
    monkeypatch.setattr(experiment, "load_data", load)
    straight, _ = searching.run(make_config(), tmp_path / "straight")
    assert rows_of(straight) == rows_of(search)
    assert [t.params for t in straight.trials] == [t.params for t in search.trials]
    assert [t.value for t in straight.trials] == [t.value for t in search.trials]


if __name__ == "__main__":
    experiment.load_data = load
    _, console = searching.run(make_config(), tiny.Path(sys.argv[1]))
    for number, *_ in console.ended:
        print(f"ended {number}")
