"""Writes and checks a complete run's summary.json, and formats its final table."""

import json
from pathlib import Path
from typing import Any

from cifar_jax.run import atomic, rules


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with atomic.replacing(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n")


# The fields that `table` shows.
_SHOWN = (
    *("test_accuracy", "top5_accuracy", "test_loss", "train_accuracy", "val_accuracy"),
    *("best_epoch", "epochs", "selected_on", "selected_by", "stopped_early", "num_params"),
    *("step_time_ms", "images_per_second", "compile_seconds", "train_seconds", "device"),
)
# The counts that are above 0 in every complete run.
_POSITIVE = ("epochs", "steps", "num_params", "best_epoch")


def is_complete(summary: dict[str, Any]) -> bool:
    """Returns whether a summary has all fields that `table` shows, with valid values."""
    known = rules.SUMMARY | rules.SUMMARY_OPTIONAL
    are_valid = all(known[name].holds(value) for name, value in summary.items() if name in known)
    counts = [summary[name] for name in _POSITIVE if name in summary]
    return (
        are_valid
        and all(map(rules.POSITIVE.holds, counts))
        and all(name in summary for name in _SHOWN)
    )


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
