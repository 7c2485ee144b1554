"""Compiled programs on disk, so that the second start of a network does not compile it again."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def use_users_folder() -> None:
    """Lets jax keep compiled programs in the user's cache folder, ~/.cache/cifar_jax/programs.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
    Deleting it is always safe. Where nothing can be written there, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "cifar_jax" / "programs" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # A start compiles some fifty small programs besides the large one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def turn_off() -> None:
    """Lets jax compile everything, for those who measure how long that takes."""
    jax.config.update("jax_enable_compilation_cache", False)


def _processor() -> str:
    """Returns a name for what programs are compiled for: machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
