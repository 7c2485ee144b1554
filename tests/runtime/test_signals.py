import os
import signal
import subprocess
import sys
import threading

import pytest
import tiny

from cifar_jax.runtime.signals import catch_signals

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_first_signal_is_recorded_and_handlers_are_restored(signum):
    before = signal.getsignal(signum)
    with catch_signals() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
    assert signal.getsignal(signum) is before


def test_second_signal_ends_the_process():
    program = (
        "import os, signal\n"
        "from cifar_jax.runtime.signals import catch_signals\n"
        "with catch_signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('too long', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tiny.ROOT, capture_output=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == b"still here\n"


def test_a_hangup_after_another_signal_is_ignored():
    """systemd ends a session with SIGTERM and SIGHUP together."""
    program = (
        "import os, signal\n"
        "from cifar_jax.runtime.signals import catch_signals\n"
        "with catch_signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('saved', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tiny.ROOT, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"saved\n"


def test_other_threads_do_not_change_handlers():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run():
        with catch_signals() as stop:
            seen.append((stop.signum, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(signum):
    """As by `nohup`, and by `&` in a shell without job control."""
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with catch_signals() as stop:
            os.kill(os.getpid(), signum)
            assert stop.signum is None
        assert signal.getsignal(signum) == signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_an_outer_request_receives_the_signal_of_an_inner_one():
    with catch_signals() as outer:
        with catch_signals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.signum == signal.SIGTERM and outer.signum is None
        assert outer.signum == signal.SIGTERM


def test_the_deadline_of_an_inner_request_is_its_own():
    with catch_signals() as outer:
        with catch_signals(deadline=0.0) as inner:
            assert inner.signum == signal.SIGTERM
        assert outer.signum is None
