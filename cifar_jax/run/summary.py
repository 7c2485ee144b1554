"""Writes and checks a complete run's summary.json, and formats its final table."""

import json
import math
from pathlib import Path
from typing import Any

from cifar_jax.run import atomic
from cifar_jax.selection import METRICS, SELECTED_ON


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with atomic.replacing(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n")


def faults(summary: dict[str, Any]) -> list[str]:
    """Returns what is wrong with the values of a summary.json, such as "epochs is null".

    Fields that are absent are not reported: each reader requires others.
    """
    return [
        f"{name} is {json.dumps(value)[:40]}"
        for name, value in summary.items()
        if name in _IS_VALID and not _IS_VALID[name](value)
    ]


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_IS_VALID = {
    **dict.fromkeys(("test_accuracy", "test_loss", "top5_accuracy", "train_accuracy"), _is_number),
    **dict.fromkeys(("images_per_second", "compile_seconds", "train_seconds"), _is_number),
    **dict.fromkeys(("epochs", "steps", "num_params", "best_epoch"), _is_count),
    **dict.fromkeys(("experiment", "model", "dtype"), _is_text),
    "val_accuracy": lambda value: value is None or _is_number(value),
    "peak_memory_bytes": lambda value: value is None or _is_number(value),
    "selected_on": lambda value: value in SELECTED_ON,
    "selected_by": lambda value: value in METRICS,
    "step_time_ms": lambda value: (
        isinstance(value, dict) and _is_number(value.get("median")) and _is_number(value.get("p95"))
    ),
    "startup_seconds": lambda value: (
        isinstance(value, dict) and all(_is_number(seconds) for seconds in value.values())
    ),
    "device": lambda value: (
        isinstance(value, dict) and _is_text(value.get("kind")) and _is_count(value.get("count"))
    ),
    "versions": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "git_commit": lambda value: value is None or _is_text(value),
}
# The fields that `table` shows.
_SHOWN = (
    *("test_accuracy", "top5_accuracy", "test_loss", "train_accuracy", "val_accuracy"),
    *("best_epoch", "epochs", "selected_on", "selected_by", "stopped_early", "num_params"),
    *("step_time_ms", "images_per_second", "compile_seconds", "train_seconds", "device"),
)


def is_complete(summary: dict[str, Any]) -> bool:
    """Returns whether a summary has all fields that `table` shows, with valid values."""
    return not faults(summary) and all(name in summary for name in _SHOWN)


def table(summary: dict[str, Any], workdir: str | Path) -> str:
    """Returns the final table as text."""
    selected = {
        "last": "last",
        "train": f"best {summary['selected_by']} on the training images",
        "val": f"best {summary['selected_by']} on the validation split",
        "test": f"best {summary['selected_by']} on the test set",
    }[summary["selected_on"]]
    if summary["stopped_early"]:
        selected += "; stopped early"
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
        ("first call done", _startup(summary.get("startup_seconds", {}))),
        ("training", f"{summary['train_seconds']:.1f} s"),
        ("device", f"{device['count']} x {device['kind']}"),
        ("results in", str(workdir)),
    ]
    if summary["val_accuracy"] is not None:
        rows.insert(3, ("validation accuracy", f"{100 * summary['val_accuracy']:.2f}%"))
    return "\n".join(f"  {name:<22}{value}" for name, value in rows if value)


def _startup(seconds: dict[str, float]) -> str:
    """Returns the start-up time and its parts, longest first; "" if the run took no steps."""
    if "total" not in seconds:
        return ""
    parts = sorted((s, name) for name, s in seconds.items() if name != "total")[::-1]
    text = ", ".join(f"{name.replace('_', ' ')} {s:.1f}" for s, name in parts if s >= 0.05)
    return f"{seconds['total']:.1f} s after the start ({text})"
