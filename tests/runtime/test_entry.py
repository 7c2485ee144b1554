import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

pytestmark = pytest.mark.usefixtures("default_signals")

PROGRAM = """
import sys
from cifar_jax.runtime import entry

def main(argv):
    import os, signal
    assert "jax" not in sys.modules  # so that an invalid command line fails at once
    import jax
    from absl import logging
    print(argv[1:], logging.get_verbosity() == logging.ERROR)
    print(os.environ.get("GLIBC_TUNABLES"))
    print(jax.config.jax_enable_compilation_cache, jax.config.jax_compilation_cache_dir)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGTERM)

entry.run(main, use_cache=%s%s)
"""


@pytest.mark.parametrize(
    ("use_cache", "stop_message", "printed"),
    [
        (True, "", "stopped before training began; nothing to save\n"),
        (False, r', stop_message=b"stopped while timing\n"', "stopped while timing\n"),
    ],
)
def test_entry_prepares_the_process(tmp_path, use_cache, stop_message, printed):
    (tmp_path / "program.py").write_text(PROGRAM % (use_cache, stop_message))
    done = subprocess.run(
        [sys.executable, "-m", "program", "--flag"],
        env={
            "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{tiny.ROOT}:{tmp_path}",
            "XDG_CACHE_HOME": str(tmp_path), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 128 + 15, done.stderr
    assert done.stderr == printed
    flags, tunables, cache = done.stdout.splitlines()
    assert (flags, tunables) == ("['--flag'] True", "glibc.malloc.hugetlb=0")
    folder = f"True {tmp_path}/cifar_jax/programs/"
    assert cache.startswith(folder) if use_cache else cache == "False None"


ABANDONED = """
import asyncio, gc, time
from cifar_jax.runtime import entry

async def raise_at_the_end():  # as Orbax does
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        raise Exception("the read was abandoned") from error

def fail_late():
    time.sleep(0.2)
    raise FileNotFoundError("the folder has been removed")

async def fail():
    tasks = [asyncio.ensure_future(raise_at_the_end())]
    tasks.append(asyncio.ensure_future(asyncio.to_thread(fail_late)))
    await asyncio.sleep(0.05)
    raise ValueError("the disk is full")

class Bug:
    def __del__(self):
        raise ZeroDivisionError("a bug")

def main():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(fail())
    except ValueError as error:
        print(error)
    loop.close()
    raise_at_the_end()  # never awaited
    time.sleep(0.4)
    gc.collect()
    Bug()
    return 1

entry.run_tool(main)
"""


def test_what_a_failed_save_or_read_abandons_prints_nothing():
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED], cwd=tiny.ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "the disk is full\n")
    assert "ZeroDivisionError: a bug" in done.stderr and done.stderr.count("Traceback") == 1
    assert "abandoned" not in done.stderr and "awaited" not in done.stderr


@pytest.mark.parametrize("platform", ["cuda", "gpuu"])
def test_a_platform_that_jax_cannot_use_is_reported_in_one_line(platform):
    code = (
        "from cifar_jax.runtime import entry; import jax; entry.run_tool(lambda: jax.numpy.ones(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tiny.ROOT, capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"error: JAX_PLATFORMS={platform} cannot be")
    assert "Traceback" not in done.stderr


def test_entry_handles_signals_before_anything_else(monkeypatch):
    from cifar_jax.runtime import compilation_cache, entry

    calls = []
    monkeypatch.setattr(entry, "exit_on_signals", lambda _: calls.append("signals"))
    monkeypatch.setattr(entry.output, "install", lambda: calls.append("output"))
    monkeypatch.setattr(entry, "restart_with_huge_pages", lambda: calls.append("restart"))
    monkeypatch.setattr(entry, "silence_libraries", lambda: calls.append("absl"))
    monkeypatch.setattr(compilation_cache, "use_users_folder", lambda: calls.append("cache"))
    with pytest.raises(SystemExit) as caught:
        entry.run(lambda argv: calls.append("main") or 3)
    assert caught.value.code == 3
    assert calls == ["signals", "output", "restart", "absl", "cache", "main"]


def test_every_command_starts_in_the_same_way():
    guard, found = '\nif __name__ == "__main__":\n', 0
    for path in [*tiny.ROOT.glob("cifar_jax/**/*.py"), *tiny.ROOT.glob("benchmarks/**/*.py")]:
        _, _, start = path.read_text().partition(guard)
        # gpu_graph, the trial of a CUDA graph, is started by a command, so it needs none of this.
        if start and path.stem != "gpu_graph":
            assert start.lstrip().startswith(("entry.run(", "entry.run_tool(")), path
            found += 1
    assert found > 10


def handles(process, signum):
    """Returns whether a process has a handler for a signal."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (signum - 1) & 1)


@pytest.mark.parametrize("command", ["cifar_jax.main", "cifar_jax.report", "benchmarks.table"])
def test_commands_handle_signals_while_they_import(command):
    """Python itself handles SIGINT, so only a handler for SIGTERM is the command's own."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-m", command], cwd=tiny.ROOT, stderr=subprocess.PIPE
        )
        while not handles(process, signal.SIGTERM) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signum)
        _, printed = process.communicate(timeout=60)
        assert process.returncode == 128 + signum, printed
        assert printed.startswith(b"stopped") and printed.count(b"\n") == 1


def test_commands_leave_ignored_signals_alone(tmp_path):
    """A shell ignores SIGINT in commands that it starts with `&`: Ctrl-C must not stop them."""
    (tmp_path / "program.py").write_text(
        "import os, signal; from cifar_jax.runtime import entry\n"
        "entry.run_tool(lambda: os.kill(os.getpid(), signal.SIGINT) or print('still here'))"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" -m program & wait $!', sys.executable],
        env=os.environ | {"PYTHONPATH": f"{tiny.ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


IN_A_TERMINAL = """
import fcntl, termios, time
from cifar_jax.run.writers import ConsoleWriter
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import catch_signals

fcntl.ioctl(0, termios.TIOCSCTTY)

def main():
    console = ConsoleWriter(2, 4)
    assert console._bar is not None
    with catch_signals() as stop:
        print("ready")
        while stop.signum is None:
            console.progress(1, 1, {"loss": 1.0, "accuracy": 0.5}, 10.0)
            time.sleep(0.01)
    console.close()
    print("stopped as requested")
    return 128 + stop.signum

entry.run_tool(main)
"""


def test_a_closed_terminal_is_a_signal_and_no_error(tmp_path):
    (tmp_path / "program.py").write_text(IN_A_TERMINAL)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "program"],
        env=os.environ | {"PYTHONPATH": f"{tiny.ROOT}:{tmp_path}", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    while b"epoch 1/2" not in printed:
        printed += os.read(ours, 4096)
    assert b"ready" in printed
    os.close(ours)
    assert process.wait(timeout=60) == 129


@pytest.mark.parametrize("package", ["cifar_jax", "benchmarks"])
def test_signals_are_handled_before_anything_slow_is_imported(package):
    code = (
        "import signal, sys; sys.argv = ['-m']; "
        f"sys.orig_argv = ['python', '-m', '{package}.main']; import {package}; "
        "assert callable(signal.getsignal(signal.SIGTERM)); "
        "assert not {'jax', 'numpy', 'absl', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, check=True)


def test_another_program_that_imports_the_package_keeps_its_signals():
    code = (
        "import signal, sys; sys.argv = ['-m']; sys.orig_argv = ['python', '-m', 'other.main']; "
        "import cifar_jax; assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, check=True)


def test_importing_the_package_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    importlib.reload(importlib.import_module("cifar_jax"))
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


RESTARTED = """
import os, signal, sys
from cifar_jax.runtime import huge_pages
from cifar_jax.runtime.signals import exit_on_signals

exit_on_signals(b"stopped\\n")
huge_pages._can_request = lambda: True
execv = os.execv

def arrive(*args):  # the signal arrives just before the restart
    os.kill(os.getpid(), signal.SIGINT)
    print("pending", flush=True)
    execv(*args)

os.execv = arrive
huge_pages.restart_with_huge_pages()
print("the signal was lost")
"""


def test_a_signal_during_the_restart_is_not_lost(tmp_path):
    (tmp_path / "program.py").write_text(RESTARTED)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        env=env | {"PYTHONPATH": f"{tiny.ROOT}:{tmp_path}"},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"pending\n", b"stopped\n")


def test_importing_orbax_does_not_change_the_log_level():
    code = (
        "import logging; from absl import logging as _; before = logging.getLogger('absl').level; "
        "import cifar_jax.train; assert logging.getLogger('absl').level == before"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, check=True)
