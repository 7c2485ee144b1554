"""Runs of several processes, which stand in for hosts: on one machine, connected by sockets.

    python -m pytest -n 0 -s tests/test_several_processes.py --several_hosts

also runs the tests that take half a minute or more each.
"""

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

LOST = "a process of this run has ended unexpectedly or cannot be reached"
# A small run on the embedded images: four steps per epoch, and the best epoch is reported.
SMALL = {
    "data.limit": 100,
    "batch_size": 32,
    "num_epochs": 2,
    "eval_batch_size": 16,
    "augment.ops": "flip|crop(2)",
}
# Adam would amplify the rounding errors of gradients that are almost zero.
SGD = {"optim.name": "sgd", "optim.learning_rate": 0.001}
THIN_CNN2 = {"model.name": "cnn2", "model.filters": (4, 8), "model.dense_units": 32}
# One with BatchNorm.
THIN_VGG = {"model.name": "vgg16", "model.layers": (8, "M", "B", 16, "M", "A")}
CNN3 = {"model.name": "cnn3"}
THIN_RESNET = {"model.name": "resnet18", "model.width": 8}


class Run:
    """The processes of one run, of which process 0 writes the workdir.

    Args:
      folder: Where the workdir and the logs of the processes are.
      num_processes: The number of processes.
      fields: Config fields.
      num_devices: The number of devices of each process.
      coordinator: The value of --coordinator; by default an address on this machine.
      different: {process: config fields that only it gets}.
      environ: Environment variables for every process.
    """

    def __init__(
        self,
        folder,
        num_processes,
        fields=THIN_CNN2,
        *,
        num_devices=1,
        coordinator=None,
        different=None,
        environ=None,
    ):
        folder.mkdir(exist_ok=True)
        address = coordinator or f"localhost:{free_port()}"
        self.folder, self.processes, self._logs = folder / "run", [], []
        for i in range(num_processes):
            own = SMALL | fields | (different or {}).get(i, {})
            command = [sys.executable, "-u", str(tiny.ROOT / "tests" / "one_process.py")]
            command += ["--config", "configs/quickstart.py", f"--workdir={self.folder}"]
            command += [f"--config.{name}={value}" for name, value in own.items()]
            if num_processes > 1 or coordinator:
                command += [f"--coordinator={address}"]
            if num_processes > 1 and coordinator is None:
                command += [f"--num_processes={num_processes}", f"--process_id={i}"]
            log = folder / f"process_{i}.log"
            env = os.environ | {
                "JAX_NUM_CPU_DEVICES": str(num_devices),
                "PYTHONPATH": str(tiny.ROOT),
                **{name: str(value).format(i=i) for name, value in (environ or {}).items()},
            }
            with log.open("a") as file:
                process = subprocess.Popen(
                    command, cwd=tiny.ROOT, env=env, stdout=file, stderr=file
                )
            self.processes.append(process)
            self._logs.append(log)

    def finish(self, timeout=240):
        """Waits for all processes, and returns their exit codes."""
        return [process.wait(timeout) for process in self.processes]

    def log(self, i):
        return self._logs[i].read_text()

    def wait_for(self, step):
        deadline = time.monotonic() + 240
        while not max(saved_steps(self.folder / "checkpoints"), default=0) >= step:
            assert all(process.poll() is None for process in self.processes), self.log(0)
            assert time.monotonic() < deadline, self.log(0)
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


@pytest.mark.slow
def test_two_processes_equal_one_even_if_they_are_killed_and_restarted(start, tmp_path):
    fields = THIN_CNN2 | {"num_epochs": 4, "steps_per_call": 1}
    one = train(start, tmp_path / "one", 1, fields, num_devices=2)
    run = start(tmp_path / "two", 2, fields, environ={"STOP_AT_STEP": 10})
    run.wait_for(8)
    run.processes[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    assert run.finish(timeout=60)[0] != 0
    print(f"ended after {time.monotonic() - killed_at:.1f} s")
    assert LOST in run.log(0).splitlines()[-1]
    assert max(saved_steps(run.folder / "checkpoints")) < 16
    two = train(start, tmp_path / "two", 2, fields)
    assert "resumed at step" in two.log(0)
    # Two devices in one process and in two add up the same two gradients.
    assert_equal(tmp_path / "two", tmp_path / "one")
    summaries = [json.loads((run.folder / "summary.json").read_text()) for run in (one, two)]
    assert summaries[0]["test_loss"] == summaries[1]["test_loss"]
    assert "epoch 4/4" in two.log(0) and "epoch" not in two.log(1)


@pytest.mark.several_hosts
def test_losing_process_0(start, tmp_path):
    run = start(tmp_path, 2, THIN_CNN2 | {"num_epochs": 1000, "steps_per_call": 1})
    run.wait_for(8)
    run.processes[0].send_signal(signal.SIGKILL)
    assert run.finish(timeout=60)[1] != 0
    assert LOST in run.log(1).splitlines()[-1]


@pytest.mark.several_hosts
def test_pmap(start, tmp_path):
    fields = THIN_VGG | {"parallel": "pmap"}
    train(start, tmp_path / "one", 1, fields, num_devices=2)
    train(start, tmp_path / "two", 2, fields)
    # The statistics of BatchNorm are those of each device's images.
    assert any("mean" in name for name in params(tmp_path / "two"))
    assert_equal(tmp_path / "two", tmp_path / "one")


@pytest.mark.several_hosts
def test_four_two_and_one_processes_continue_a_run(start, tmp_path):
    fields = THIN_CNN2 | SGD | {"num_epochs": 100, "steps_per_call": 1}
    train(start, tmp_path / "straight", 1, fields)
    last = 0
    for num_processes in (4, 2):
        run = start(tmp_path / "run", num_processes, fields)
        run.wait_for(last + 4)
        # All stop at the same step, whichever receives the signal.
        run.processes[-1].send_signal(signal.SIGTERM)
        assert set(run.finish()) == {128 + signal.SIGTERM}, run.log(0)
        last = max(saved_steps(run.folder / "checkpoints"))
        assert f"saved at step {last} of 400" in run.log(0)
    train(start, tmp_path / "run", 1, fields)
    # An epoch that was lost or trained twice would make a difference of 1.
    assert_close(tmp_path / "run", tmp_path / "straight", 0.2)


@pytest.mark.several_hosts
@pytest.mark.parametrize(
    # BatchNorm amplifies rounding errors.
    ("model", "tolerance"),
    [(CNN3, 1e-3), (THIN_RESNET, 3e-2)],
    ids=["cnn3", "resnet18"],
)
def test_two_processes_of_four_devices_equal_one_device(start, tmp_path, model, tolerance):
    fields = model | SGD | {"num_epochs": 5}
    train(start, tmp_path / "one", 1, fields)
    train(start, tmp_path / "eight", 2, fields, num_devices=4)
    assert_close(tmp_path / "eight", tmp_path / "one", tolerance)


@pytest.mark.slow
def test_weights_of_another_run(start, tmp_path):
    train(start, tmp_path / "source", 1, THIN_VGG)
    fields = THIN_VGG | {"transfer.weights": tmp_path / "source" / "run", "transfer.train": "head"}
    train(start, tmp_path / "one", 1, fields, num_devices=2)
    train(start, tmp_path / "two", 2, fields)
    assert_equal(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_divergence(start, tmp_path):
    run = start(tmp_path, 2, THIN_CNN2 | SGD | {"optim.learning_rate": 1e30})
    assert run.finish() == [1, 1]
    assert "Lower optim.learning_rate" in run.log(0) and LOST not in run.log(0)


@pytest.mark.several_hosts
def test_slurm(start, tmp_path):
    environ = {
        "SLURM_JOB_ID": os.getpid(),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": 2,
        "SLURM_PROCID": "{i}",
        "SLURM_LOCALID": "{i}",
    }
    run = train(start, tmp_path, 2, coordinator="auto", environ=environ)
    assert "epoch 2/2" in run.log(0) and "epoch" not in run.log(1)


def test_different_configs(start, tmp_path):
    run = start(tmp_path, 2, different={1: {"seed": 1}})
    assert run.finish() == [1, 1]
    expected = "process 1 has a different config from process 0: seed is 1 here and 0 there"
    assert expected in run.log(1)
    assert "process 1 has a different config from process 0; its own message" in run.log(0)


def test_auto_without_a_cluster(start, tmp_path):
    run = start(tmp_path, 1, coordinator="auto")
    assert run.finish() == [1]
    assert "--coordinator=auto finds neither SLURM nor Open MPI" in run.log(0)


@pytest.mark.slow
def test_a_signal_before_training(start, tmp_path):
    run = start(tmp_path, 2, {"num_epochs": 1000})
    # After the processes have found each other, and before the first step.
    while "Gloo" not in run.log(1):
        time.sleep(0.02)
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.finish(timeout=90)[1] == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost", 2, 0), "must be HOST:PORT or auto"),
        (("localhost:1234", None, 0), "needs --num_processes"),
        (("localhost:1234", 2, 2), "from 0 to --num_processes - 1"),
        (("localhost:1234", 0, 0), "--num_processes must be at least 1"),
        (("localhost:0", 2, 0), "from 1 to 65535"),
        (("localhost:99999", 2, 0), "from 1 to 65535"),
        ((None, 2, 0), "need --coordinator"),
        (("auto", None, 0), "takes neither"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(UserError, match=message), distributed.connected(*arguments):
        pass


def test_no_coordinator(monkeypatch):
    monkeypatch.setattr(distributed, "FIND_SECONDS", 1)
    address = f"localhost:{free_port()}"
    with pytest.raises(UserError, match=f"no coordinator at {address} after 1 seconds"):
        distributed._find(address)
