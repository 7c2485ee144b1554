"""What a run leaves behind besides its curves: summary.json, predictions.npz, the final table."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np


def environment() -> dict[str, Any]:
    """Returns device, versions and git_commit of the running process."""
    devices = jax.local_devices()
    return {
        "device": {
            "platform": devices[0].platform,
            "kind": _device_kind(devices[0]),
            "count": len(devices),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax")},
        },
        "git_commit": git_commit(),
    }


def _device_kind(device: jax.Device) -> str:
    if device.platform != "cpu":
        return device.device_kind
    try:  # jax says just "cpu"; step times are worth little without the processor's name
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Returns the checkout's commit, "-dirty" behind it where tracked files differ, or None."""
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


def peak_memory_bytes() -> int | None:
    """Returns the most memory that one local device has held, None where it keeps no count."""
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
    return max((p for p in peaks if p is not None), default=None)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_predictions(
    path: Path, logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> None:
    """Writes predictions.npz.

    Args:
      path: of the file.
      logits: [N, C] float32 of the test images, in the test set's order.
      labels: [N] int32.
      class_names: C of them.
    """
    np.savez_compressed(
        path,
        logits=logits,
        labels=labels,
        predictions=logits.argmax(axis=-1).astype(np.int32),
        class_names=np.array(class_names),
    )


def table(summary: dict[str, Any], workdir: Path) -> str:
    """Returns the final table, for people."""
    selected = {
        "last": "last",
        "val": "best on the validation split",
        "test": "best on the test set",
    }[summary["selected_on"]]
    time_per_step = summary["step_time_ms"]
    device = summary["device"]
    rows = [
        ("test accuracy", f"{100 * summary['test_accuracy']:.2f}%"),
        ("test top-5 accuracy", f"{100 * summary['top5_accuracy']:.2f}%"),
        ("test loss", f"{summary['test_loss']:.4f}"),
        ("train accuracy", f"{100 * summary['train_accuracy']:.2f}%"),
        ("epoch reported", f"{summary['best_epoch']} of {summary['epochs']} ({selected})"),
        ("parameters", f"{summary['num_params']:,}"),
        ("step time", f"{time_per_step['median']:.2f} ms (p95 {time_per_step['p95']:.2f} ms)"),
        ("throughput", f"{summary['images_per_second']:,.0f} images/s"),
        ("compilation", f"{summary['compile_seconds']:.1f} s"),
        ("training", f"{summary['train_seconds']:.1f} s"),
        ("device", f"{device['count']} x {device['kind']}"),
        ("results in", str(workdir)),
    ]
    if summary["val_accuracy"] is not None:
        rows.insert(3, ("validation accuracy", f"{100 * summary['val_accuracy']:.2f}%"))
    return "\n".join(f"  {name:<22}{value}" for name, value in rows)
