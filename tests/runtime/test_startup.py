import subprocess
import sys
import time
from pathlib import Path

import pytest

from cifar_jax.runtime.startup import Startup, process_began


def test_parts_add_up_to_the_total(monkeypatch):
    clock = iter([10.0, 11.0, 14.0, 14.5, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    startup = Startup()
    startup.mark("imports")
    startup.mark("network", tracing=0.5, compilation=2.0)
    startup.finish("first_step")
    startup.finish("first_step")
    startup.mark("data")
    assert startup.seconds == {
        "imports": 1.0, "tracing": 0.5, "compilation": 2.0, "network": 0.5, "first_step": 0.5,
        "total": 4.5,
    }  # fmt: skip


def test_process_began_before_its_first_line():
    code = "from cifar_jax.runtime import startup; import time; print(time.monotonic()"
    code += " - startup.process_began())"
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The system counts in ticks of 10 ms.
    assert 0 < float(done.stdout) <= time.monotonic() - before + 0.02


def test_process_began_is_now_without_proc(monkeypatch):
    monkeypatch.setattr("cifar_jax.runtime.startup.Path", lambda path: Path("/no/such/file"))
    assert process_began() == pytest.approx(time.monotonic(), abs=0.1)
