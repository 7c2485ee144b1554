import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny

from cifar_jax.errors import UserError
from cifar_jax.run import workdir
from cifar_jax.run.workdir import is_at_work

HOLD = """
import sys, time
from pathlib import Path
from cifar_jax.run import workdir
with workdir.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_killed_process_releases_the_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tiny.ROOT)},
    )
    try:
        assert holder.stdout.readline() == b"locked\n"
        assert is_at_work(tmp_path)
        with (
            pytest.raises(UserError, match=f"another process is using --workdir {tmp_path}"),
            workdir.locked(tmp_path),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert not is_at_work(tmp_path)
    with workdir.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []  # the lock itself is not a file


def test_lock_waits_for_a_report(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [handle]).start()
    start = time.perf_counter()
    with workdir.locked(tmp_path):
        assert 0.2 < time.perf_counter() - start < 1


def test_file_systems_without_locks_are_supported(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    with workdir.locked(tmp_path / "new"):
        assert is_at_work(tmp_path / "new") is None


@pytest.mark.parametrize(
    ("num_epochs", "overrides"), [(1, {}), (3, {"lookahead__every": 2}), (3, {"seed": 1})]
)
def test_a_complete_run_is_not_shortened_or_continued_differently(
    tmp_path, monkeypatch, num_epochs, overrides
):
    """The rates of lookahead depend on the length of the run."""
    monkeypatch.setattr(workdir, "saved_steps", lambda folder: [8])
    same = {name: value for name, value in overrides.items() if name != "seed"}
    workdir.claim(tiny.make_config(num_epochs=2, **same), tmp_path)
    assert workdir.check(tiny.make_config(num_epochs=2, **same), tmp_path) is None
    with pytest.raises(UserError, match=r"holds another run: (num_epochs is 2|seed is 0) there"):
        workdir.check(tiny.make_config(num_epochs=num_epochs, **overrides), tmp_path)


@pytest.mark.parametrize(
    ("groups", "is_refused"),
    [
        ("*/bias: learning_rate=0.1", False),
        ("*/bias: schedule='cosine'", True),
        ("*/bias: schedule='cosine', num_epochs=1", False),
    ],
)
def test_more_epochs_are_refused_if_they_change_learning_rates_of_a_group(
    tmp_path, monkeypatch, groups, is_refused
):
    monkeypatch.setattr(workdir, "saved_steps", lambda folder: [8])
    workdir.claim(tiny.make_config(num_epochs=2, optim__groups=groups), tmp_path)
    longer = tiny.make_config(num_epochs=3, optim__groups=groups)
    if is_refused:
        with pytest.raises(UserError, match="num_epochs is 2 there and 3 here"):
            workdir.check(longer, tmp_path)
    else:
        assert workdir.check(longer, tmp_path) is None
