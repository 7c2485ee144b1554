import os
import threading
import time

import pytest

from cifar_jax.run import workdir
from cifar_jax.study import ownership
from cifar_jax.study.ownership import Timing, claim

NEVER, SOON = Timing(interval=100, timeout=50), Timing(interval=100, timeout=-1)


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Ends the threads of all owners."""
    owners, init = [], ownership.Owner.__init__

    def remember(self, *args):
        init(self, *args)
        owners.append(self)

    monkeypatch.setattr(ownership.Owner, "__init__", remember)
    yield
    for owner in owners:
        owner.close(abandons=False)


def test_only_one_of_many_workers_owns_a_trial(tmp_path):
    barrier, owners = threading.Barrier(16), []

    def compete():
        barrier.wait()
        owners.append(claim(tmp_path / "0", NEVER))

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (owner,) = filter(None, owners)
    assert owner.is_current()


def test_a_trial_is_taken_once_its_owner_is_silent(tmp_path):
    first = claim(tmp_path, Timing(interval=100, timeout=100))
    assert claim(tmp_path, NEVER) is None
    path = tmp_path / ".owner.0"
    os.utime(path, (time.time() - 51, time.time() - 51))
    second = claim(tmp_path, NEVER)
    assert second.is_current() and not first.is_current()
    assert claim(tmp_path, NEVER) is None
    assert not list(tmp_path.glob(".clock*"))


def test_an_owner_renews_its_file(tmp_path):
    owner = claim(tmp_path, Timing(interval=0.02, timeout=0.5))
    os.utime(tmp_path / ".owner.0", (0, 0))
    time.sleep(0.3)
    assert claim(tmp_path, Timing(interval=1, timeout=5)) is None
    owner.close(abandons=False)
    os.utime(tmp_path / ".owner.0", (0, 0))
    time.sleep(0.1)
    assert claim(tmp_path, NEVER)


def test_an_abandoned_trial_can_be_taken_at_once(tmp_path):
    claim(tmp_path, NEVER).close(abandons=True)
    assert claim(tmp_path, NEVER)


def test_a_suspended_worker_keeps_its_trial_while_it_holds_the_lock(tmp_path):
    owner = claim(tmp_path, SOON)
    with workdir.locked(tmp_path):
        assert claim(tmp_path, SOON) is None
    assert claim(tmp_path, SOON) and not owner.is_current()
