import subprocess
import sys

import pytest
import tiny

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


def test_entry_restarts_with_huge_pages_before_anything_else(monkeypatch):
    from cifar_jax.runtime import compilation_cache, entry

    calls = []
    monkeypatch.setattr(entry, "restart_with_huge_pages", lambda: calls.append("restart"))
    monkeypatch.setattr(entry, "exit_on_signals", lambda _: calls.append("signals"))
    monkeypatch.setattr(entry, "silence_absl", lambda: calls.append("absl"))
    monkeypatch.setattr(compilation_cache, "use_users_folder", lambda: calls.append("cache"))
    with pytest.raises(SystemExit) as caught:
        entry.run(lambda argv: calls.append("main") or 3)
    assert caught.value.code == 3
    assert calls[0] == "restart" and calls[-1] == "main" and len(calls) == 5


@pytest.mark.parametrize("module", ["cifar_jax.run.checkpoint", "cifar_jax.train"])
def test_importing_a_module_does_not_change_the_log_level(module):
    code = (
        "import logging; from absl import logging as _; before = logging.getLogger('absl').level; "
        f"import {module}; assert logging.getLogger('absl').level == before"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, check=True)
