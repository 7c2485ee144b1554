import os
import subprocess
import sys

import pytest
import tiny

from cifar_jax.runtime import compilation_cache

PROGRAM = (
    "import jax\n"
    "from cifar_jax.runtime import compilation_cache\n"
    "compilation_cache.use_users_folder()\n"
    "jax.jit(lambda x: x + 1)(1.0)\n"
)


def run(home, **environ):
    """Compiles a program in a process whose cache home is `home`; returns its files and stderr."""
    environ = {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(home)} | environ
    for name in os.environ.keys() - environ.keys():
        if not name.startswith("JAX_"):
            environ[name] = os.environ[name]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tiny.ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return sorted(path.name for path in home.rglob("*") if path.is_file()), done.stderr


def test_programs_are_cached_and_reused(tmp_path):
    first, _ = run(tmp_path)
    assert any(name.endswith("-cache") for name in first)
    again, errors = run(tmp_path)
    assert again == first and errors == ""


def test_environment_selects_another_folder_or_none(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    files, _ = run(
        home,
        JAX_COMPILATION_CACHE_DIR=str(other),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    assert files == [] and any(other.iterdir())
    assert run(home, JAX_ENABLE_COMPILATION_CACHE="false")[0] == []


def test_unwritable_folder_disables_the_cache(tmp_path):
    home = tmp_path / "file"
    home.write_text("not a folder")
    assert run(home) == ([], "")


def test_a_user_without_home_has_no_cache(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", fail)
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compilation_cache, "_configure", lambda *_: pytest.fail("configured"))
    compilation_cache.use_users_folder()
