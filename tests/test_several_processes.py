"""Runs of several processes, which stand in for hosts: on one machine, connected by sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny

from cifar_jax.errors import UserError
from cifar_jax.run.checkpoint import open_checkpoints
from cifar_jax.run.storage import saved_steps
from cifar_jax.runtime import distributed

AUGMENTED = {"augment__ops": "flip|crop(2)", "model": tiny.NETWORK}


class Run:
    """The processes of one run, of which process 0 writes the workdir."""

    def __init__(
        self,
        folder,
        num_processes,
        *,
        num_devices=1,
        seeds=None,
        is_auto=False,
        is_slurm=False,
        **overrides,
    ):
        folder.mkdir(exist_ok=True)
        address = f"localhost:{free_port()}" if num_processes > 1 else ""
        address = "auto" if is_auto else address
        environ = os.environ | {
            "JAX_NUM_CPU_DEVICES": str(num_devices),
            "PYTHONPATH": str(tiny.ROOT),
            "CIFAR_JAX_HUGE_PAGES": "0",
        }
        self.folder, self.processes, self._logs = folder / "run", [], []
        for i in range(num_processes):
            log = folder / f"process_{i}.log"
            overrides |= {"seed": seeds[i]} if seeds else {}
            arguments = [address, num_processes, i, self.folder, json.dumps(overrides)]
            # What SLURM sets for the tasks of a step on this host.
            slurm = {"JOB_ID": os.getpid(), "STEP_NODELIST": "localhost", "NTASKS": num_processes}
            slurm = {f"SLURM_{k}": str(v) for k, v in (slurm | {"PROCID": i, "LOCALID": i}).items()}
            with log.open("a") as file:
                process = subprocess.Popen(
                    [sys.executable, "-u", tiny.ROOT / "tests" / "one_process.py"]
                    + [str(argument) for argument in arguments],
                    env=environ | (slurm if is_slurm else {}),
                    stdout=file,
                    stderr=file,
                )
            self.processes.append(process)
            self._logs.append(log)

    def finish(self, timeout=240):
        """Waits for all processes, and returns their exit codes."""
        return [process.wait(timeout) for process in self.processes]

    def log(self, i):
        return self._logs[i].read_text()

    def wait_for(self, step):
        while not max(saved_steps(self.folder / "checkpoints"), default=0) >= step:
            assert all(process.poll() is None for process in self.processes), self.log(0)
            time.sleep(0.02)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def start():
    runs = []

    def start(*args, **kwargs):
        runs.append(Run(*args, **kwargs))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def train(start, *args, **kwargs):
    run = start(*args, **kwargs)
    codes = run.finish()
    assert not any(codes), "\n".join(run.log(i) for i in range(len(codes)))
    return run


def params(folder, which=-1):
    """Returns the parameters and statistics in a checkpoint, the latest by default, by path."""
    with open_checkpoints(folder / "run" / "checkpoints", read_only=True) as checkpoints:
        step = saved_steps(folder / "run" / "checkpoints")[which]
        saved = checkpoints.restore_arrays(step, ("params", "batch_stats"))
    leaves = jax.tree_util.tree_leaves_with_path(saved)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def difference(folder, other, *, of_other=-1):
    """Returns the norm of the difference of all parameters of two runs."""
    values, others = params(folder), params(other, of_other)
    assert values.keys() == others.keys()
    return np.sqrt(sum(np.sum(np.square(values[name] - others[name])) for name in values))


def assert_equal(folder, other):
    assert difference(folder, other) == 0


def assert_close(folder, other, tolerance):
    """Checks the difference relative to what the last epoch changed."""
    change = difference(other, other, of_other=-2)
    error = difference(folder, other) / change
    print(f"difference {error:.1e} of the last epoch's change")
    assert error <= tolerance


def test_two_processes_equal_one(start, tmp_path):
    train(start, tmp_path / "one", 1, num_devices=2, **AUGMENTED)
    two = train(start, tmp_path / "two", 2, **AUGMENTED)
    # Two devices in one process and in two add up the same two gradients.
    assert_equal(tmp_path / "two", tmp_path / "one")
    assert "epoch 1/2" in two.log(0) and "epoch" not in two.log(1)


@pytest.mark.slow
def test_pmap(start, tmp_path):
    settings = AUGMENTED | {"parallel": "pmap", "model": tiny.SPLIT_NETWORK}
    train(start, tmp_path / "one", 1, num_devices=2, **settings)
    train(start, tmp_path / "two", 2, **settings)
    # The network has BatchNorm, whose statistics are those of each device's images.
    assert any("mean" in name for name in params(tmp_path / "two"))
    assert_equal(tmp_path / "two", tmp_path / "one")


def test_a_killed_process_ends_the_others_and_a_restart_resumes(start, tmp_path):
    settings = AUGMENTED | {"num_epochs": 20, "steps_per_call": 1}
    train(start, tmp_path / "straight", 1, num_devices=2, **settings)
    run = start(tmp_path / "killed", 2, **settings)
    run.wait_for(8)
    run.processes[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    assert run.finish(timeout=60)[0] != 0
    print(f"ended after {time.monotonic() - killed_at:.1f} s")
    assert "another process of this run has ended" in run.log(0).splitlines()[-1]
    assert max(saved_steps(run.folder / "checkpoints")) < 80
    resumed = train(start, tmp_path / "killed", 2, **settings)
    assert "resumed at step" in resumed.log(0)
    assert_equal(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_slurm(start, tmp_path):
    assert "epoch 2/2" in train(start, tmp_path, 2, is_auto=True, is_slurm=True).log(0)


@pytest.mark.slow
def test_losing_process_0(start, tmp_path):
    run = start(tmp_path / "run", 2, num_epochs=1000, steps_per_call=1, **AUGMENTED)
    run.wait_for(8)
    run.processes[0].send_signal(signal.SIGKILL)
    assert run.finish(timeout=60)[1] != 0
    assert "another process of this run has ended" in run.log(1).splitlines()[-1]


@pytest.mark.slow
def test_four_two_and_one_processes_continue_a_run(start, tmp_path):
    settings = AUGMENTED | {"num_epochs": 100, "steps_per_call": 1}
    train(start, tmp_path / "straight", 1, **settings)
    last = 0
    for num_processes in (4, 2):
        run = start(tmp_path / "run", num_processes, **settings)
        run.wait_for(last + 4)
        # All stop at the same step, whichever receives the signal.
        run.processes[-1].send_signal(signal.SIGTERM)
        assert set(run.finish()) == {128 + signal.SIGTERM}, run.log(0)
        last = max(saved_steps(run.folder / "checkpoints"))
        assert f"saved at step {last} of 400" in run.log(0)
    train(start, tmp_path / "run", 1, **settings)
    assert_close(tmp_path / "run", tmp_path / "straight", 1e-2)


CNN3 = {"name": "cnn3"}
RESNET = {"name": "resnet18", "width": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    # BatchNorm amplifies rounding errors.
    ("model", "tolerance"),
    [(CNN3, 1e-3), (RESNET, 3e-2)],
    ids=["cnn3", "resnet18"],
)
def test_two_processes_of_four_devices_equal_one_device(start, tmp_path, model, tolerance):
    # Adam would amplify the rounding errors of gradients that are almost zero.
    sgd = {"optim__name": "sgd", "optim__learning_rate": 0.001}
    settings = {"augment__ops": "flip|crop(2)", "model": model, "num_epochs": 5, **sgd}
    train(start, tmp_path / "one", 1, **settings)
    train(start, tmp_path / "eight", 2, num_devices=4, **settings)
    assert_close(tmp_path / "eight", tmp_path / "one", tolerance)


def test_different_configs(start, tmp_path):
    run = start(tmp_path, 2, seeds=[0, 1])
    assert run.finish() == [1, 1]
    assert "process 1 has another config than process 0: seed is 1 here and 0 there" in run.log(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost", 2, 0), "must be HOST:PORT or auto"),
        (("localhost:1234", None, 0), "needs --num_processes"),
        (("localhost:1234", 2, 2), "from 0 to --num_processes - 1"),
        (("localhost:1234", 0, 0), "from 0 to --num_processes - 1"),
        ((None, 2, 0), "need --coordinator"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(UserError, match=message), distributed.connected(*arguments):
        pass


def test_auto_without_a_cluster(start, tmp_path):
    run = start(tmp_path, 1, is_auto=True)
    assert run.finish() == [1]
    assert "--coordinator=auto finds no SLURM" in run.log(0)


def test_no_coordinator(monkeypatch):
    monkeypatch.setattr(distributed, "FIND_SECONDS", 1)
    address = f"localhost:{free_port()}"
    with pytest.raises(UserError, match=f"no coordinator at {address} after 1 seconds"):
        distributed._find(address)
