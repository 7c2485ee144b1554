"""Describes what a measurement ran on: device, versions and commit."""

import contextlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

# The microseconds of processor time in a period, and the period.
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def environment() -> dict[str, Any]:
    """Returns the `device`, `versions` and `git_commit` of the running process."""
    devices = jax.devices()
    return {
        "device": {
            "platform": devices[0].platform,
            "kind": _device_kind(devices[0]),
            "count": len(devices),
            # CPU cores that this process may use, shared by all virtual devices.
            "cores": num_cores() if devices[0].platform == "cpu" else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax")},
        },
        "git_commit": git_commit(),
    }


def num_cores() -> int:
    """Returns the number of cores that this process may use, at most the quota of a container."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no control groups, or "max"
        quota, period = map(int, _CPU_QUOTA.read_text().split())
        cores = min(cores, -(-quota // period))
    return cores


def _device_kind(device: jax.Device) -> str:
    if device.platform != "cpu":
        return device.device_kind
    try:  # JAX reports only "cpu", which says too little about a step time
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Returns the checkout's commit, with the suffix "-dirty" if tracked files differ, or None.

    CIFAR_JAX_COMMIT overrides it, for files that were copied without their history.
    """
    if os.environ.get("CIFAR_JAX_COMMIT"):
        return os.environ["CIFAR_JAX_COMMIT"]
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
