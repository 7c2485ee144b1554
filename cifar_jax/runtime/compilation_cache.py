"""Keeps compiled programs on disk, so that a network is not recompiled at every start."""

import hashlib
import os
import platform
import sys
from pathlib import Path


def use_users_folder() -> None:
    """Makes JAX keep compiled programs in the user's cache folder, ~/.cache/cifar_jax/programs.

    JAX_COMPILATION_CACHE_DIR selects another folder, and JAX_ENABLE_COMPILATION_CACHE=false turns
    the cache off. The folder is safe to delete at any time. If it cannot be written, or the user
    has no home folder, as in some containers, nothing is cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "cifar_jax" / "programs" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a RuntimeError if there is no home folder
        return
    if os.access(folder, os.W_OK):
        _configure("jax_compilation_cache_dir", str(folder))
        # At the start, about fifty small programs are compiled in addition to the large one.
        _configure("jax_persistent_cache_min_compile_time_secs", 0.0)


def turn_off() -> None:
    """Makes JAX compile everything, for commands that measure how long that takes."""
    _configure("jax_enable_compilation_cache", False)


def _configure(option: str, value: str | float | bool) -> None:
    """Sets a jax option without importing jax, which takes a second."""
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(option, value)
    else:
        os.environ[option.upper()] = str(value)


def _processor() -> str:
    """Returns a key for the processor that programs are compiled for.

    Machines with different processors may share a home folder.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
