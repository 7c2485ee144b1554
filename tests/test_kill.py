"""A run that is killed and restarted gives the same results as an uninterrupted one.

    python -m pytest tests/test_kill.py --kills 50 --source FOLDER -s

kills cnn2 on CIFAR-100 fifty times, half of the time while a checkpoint is being written, and
prints when. It kills the preparation of CIFAR-100 half as often. Without --source, the run takes a
few steps on tiny.py's data set, and only a few images are prepared.
"""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import fake_cifar
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from cifar_jax.data import prepared
from cifar_jax.run import checksums
from cifar_jax.run.storage import saved_steps

TMP = "*.orbax-checkpoint-tmp"
# The fields of summary.json that differ between runs: measurements and the state of the checkout.
DIFFERING = (
    *("step_time_ms", "images_per_second", "compile_seconds", "train_seconds", "startup_seconds"),
    "git_commit",
)


def flags_of(source, num_kills):
    common = ["--config.checkpoint.every_minutes=0.0", "--config.steps_per_call=1"]
    if source is None:
        return [
            *("--config", "configs/quickstart.py", "--config.model.name=cnn_small"),
            *("--config.batch_size=32", "--config.num_epochs=3", "--config.data.limit=200"),
            *common,
        ]
    return [
        *("--config", "configs/cnn2.py", f"--config.data.dir={source}"),
        *("--config.data.limit=720", f"--config.num_epochs={max(num_kills // 5, 2)}"),
        *common,
    ]


class Processes:
    """The process of killable.py and those that it forks, one at a time."""

    def __init__(self, folder):
        self._log = folder / "log.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-u", "tests/killable.py"],
            cwd=tiny.ROOT,
            env=os.environ
            | {
                "JAX_NUM_CPU_DEVICES": "1",
                # Restarts compile nothing, not even what takes little time.
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "PYTHONPATH": str(tiny.ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *command):
        line = json.dumps([str(self._log), *map(str, command)])
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        self._process = int(self._server.stdout.readline())

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        return int(self._server.stdout.readline())

    def is_alive(self):
        try:
            os.kill(self._process, 0)
        except ProcessLookupError:
            return False
        return True

    def finish(self):
        assert int(self._server.stdout.readline()) == 0, self._log.read_text()
        return self._log.read_text()

    def close(self):
        self._server.stdin.close()
        self._server.wait(timeout=60)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    processes = Processes(tmp_path_factory.mktemp("log"))
    yield processes
    processes.close()


def kill_once(processes, command, rng):
    """Starts a run and kills it; returns whether that left a checkpoint half written."""
    folder = command[-1] / "checkpoints"
    before = max(saved_steps(folder), default=0)
    goal = before + rng.randint(0, 4)
    is_in_write = rng.random() < 0.5
    processes.start(*command)
    while processes.is_alive():
        reached = max(saved_steps(folder), default=0) >= goal
        if reached and (not is_in_write or any(folder.glob(TMP))):
            time.sleep(rng.uniform(0.0, 0.03 if is_in_write else 1.0))
            break
        time.sleep(0.0005)
    status = processes.kill()
    assert status in (0, -signal.SIGKILL)  # 0 if it ended in the meantime
    return any(folder.glob(TMP))


def state_of(workdir):
    """Returns the step and the arrays of the latest checkpoint, without knowing its structure."""
    step = max(saved_steps(workdir / "checkpoints"))
    path = workdir / "checkpoints" / str(step) / "state"
    arrays = ocp.StandardCheckpointer().restore(path.resolve())
    return step, jax.tree.map(checksums.on_host, arrays)


def curves(workdir):
    with (workdir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def summary(workdir):
    values = json.loads((workdir / "summary.json").read_text())
    return {name: value for name, value in values.items() if name not in DIFFERING}


@pytest.mark.slow
@pytest.mark.scalable
def test_a_run_killed_at_random_moments_equals_an_uninterrupted_one(
    tmp_path, pytestconfig, processes
):
    num_kills = pytestconfig.getoption("kills")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    command = ["main", *flags_of(pytestconfig.getoption("source"), num_kills), "--workdir"]
    processes.start(*command, straight)
    processes.finish()
    rng = random.Random(0)
    half_written = 0
    for kill in range(num_kills):
        half_written += kill_once(processes, [*command, killed], rng)
        names = sorted(path.name for path in (killed / "checkpoints").glob("*"))
        print(f"kill {kill + 1}: checkpoints {' '.join(names)}")
    processes.start(*command, killed)
    output = processes.finish()
    print(next((line for line in output.splitlines() if "resumed" in line), "from the start"))
    print(f"{half_written} of {num_kills} kills left a checkpoint half written")

    (step, state), (other_step, other_state) = state_of(straight), state_of(killed)
    assert step == other_step and {"params", "opt_state"} <= state["state"].keys()
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    rows = curves(killed)
    assert rows == curves(straight)
    assert [int(row["epoch"]) for row in rows] == [*range(1, len(rows) + 1)]
    assert summary(straight) == summary(killed)
    for folder in (straight, killed):
        assert not any((folder / "checkpoints").glob(TMP))
    first, second = (np.load(folder / "predictions.npz") for folder in (straight, killed))
    np.testing.assert_array_equal(first["logits"], second["logits"])


@pytest.mark.slow
@pytest.mark.scalable
def test_data_prepared_after_kills_equals_that_prepared_at_once(tmp_path, pytestconfig, processes):
    name, source, command = "cifar100", pytestconfig.getoption("source"), "prepare"
    if source is None:
        with pytest.MonkeyPatch.context() as patch:
            fake_cifar.shrink(patch)
            source, command = fake_cifar.write(name, tmp_path).folder, "prepare_few"
    flags = [command, name, "--source", source, "--data_dir"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    processes.start(*flags, straight)
    start = time.monotonic()
    processes.finish()
    seconds = time.monotonic() - start
    expected = files_of(prepared.find(name, straight))
    rng, num_kills = random.Random(0), (pytestconfig.getoption("kills") + 1) // 2
    half_written = set()
    for kill in range(num_kills):
        processes.start(*flags, killed)
        time.sleep(rng.uniform(0.0, 1.0) * seconds)
        processes.kill()
        names = sorted(path.name for path in (killed / name).glob("*"))
        print(f"kill {kill + 1}: {' '.join(names) or 'nothing yet'}")
        half_written |= {path for path in names if path.startswith("incomplete.")}
        found = prepared.find(name, killed)  # raises UserError for an incomplete directory
        assert found is None or files_of(found) == expected
        if found is not None:
            shutil.rmtree(killed)
    processes.start(*flags, killed)
    processes.finish()
    print(f"{len(half_written)} of {num_kills} kills left data half written")
    assert files_of(prepared.find(name, killed)) == expected


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
