"""Checks the values in a run's files, which may have been edited, mixed up or cut off."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cifar_jax import data
from cifar_jax.errors import UserError
from cifar_jax.selection import SELECTED_ON


class Rule(NamedTuple):
    """What a value must be, in words and as a predicate."""

    text: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Returns whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return is_number(value) and value == int(value) and 0 <= value < 2**53


def _one_of(names: tuple[str, ...]) -> Rule:
    return Rule(
        f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names
    )


_TEXT = Rule("text", lambda value: isinstance(value, str))
_NUMBER = Rule("a finite number", is_number)
_SECONDS = Rule("a number of seconds", lambda value: is_number(value) and value >= 0)
_COUNT = Rule("a whole number of at least 0", _is_count)
_FRACTION = Rule("a fraction from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)

# The fields that a page needs, by their dotted name.
CONFIG = {
    "experiment": _TEXT,
    "seed": _COUNT,
    "num_epochs": _COUNT,
    "model.name": _TEXT,
    "data.name": _one_of(data.NAMES),
    "data.label": _one_of(data.LABELS),
    "data.val_fraction": _FRACTION,
}
SUMMARY = {
    "test_accuracy": _FRACTION,
    "test_loss": _NUMBER,
    "top5_accuracy": _FRACTION,
    "best_epoch": _COUNT,
    "epochs": _COUNT,
    "selected_on": _one_of(SELECTED_ON),
    "num_params": _COUNT,
    "model": _TEXT,
    "step_time_ms": Rule(
        "an object with the numbers median and p95",
        lambda value: (
            isinstance(value, dict)
            and all(is_number(value.get(name)) for name in ("median", "p95"))
        ),
    ),
    "train_seconds": _SECONDS,
    "compile_seconds": _SECONDS,
    "device": Rule(
        "an object with count and kind",
        lambda value: isinstance(value, dict) and {"count", "kind"} <= value.keys(),
    ),
    "versions": Rule("an object", lambda value: isinstance(value, dict)),
    "git_commit": Rule("text or null", lambda value: value is None or isinstance(value, str)),
}
# The fields of summary.json that may be absent or null.
_OPTIONAL = {
    "train_accuracy": _FRACTION,
    "val_accuracy": _FRACTION,
    "images_per_second": _NUMBER,
    "peak_memory_bytes": _COUNT,
    "dtype": _TEXT,
}


def fields(path: Path, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Checks the fields of config.json or summary.json.

    Args:
      path: The file.
      values: Its content; that of config.json is flattened.
      rules: CONFIG or SUMMARY.

    Raises:
      UserError: If a field is missing, or its value breaks its rule.
    """
    missing = [field for field in rules if field not in values]
    if missing:
        raise UserError(f"{path} is not from a cifar_jax run: it lacks {', '.join(missing)}")
    optional = {name: _OPTIONAL[name] for name in _OPTIONAL if values.get(name) is not None}
    for name, rule in {**rules, **optional}.items():
        if not rule.holds(values[name]):
            raise UserError(f"{path}: {name} must be {rule.text}, got {_short(values[name])}")


def metrics_row(row: Mapping[str, str], where: str) -> dict[str, float | int | str | None]:
    """Returns a row of metrics.csv with its numbers parsed; empty values are None.

    Args:
      row: The texts of the row.
      where: The file and line, for the error message.

    Raises:
      UserError: If a value is not a number, epoch or step is not a whole number, or an accuracy is
        not a fraction. Values that are not finite are returned as they are.
    """
    parsed: dict[str, float | int | str | None] = {}
    for name, text in row.items():
        if name == "events" or text == "":
            parsed[name] = text if name == "events" else None
            continue
        try:
            value = float(text)
        except (TypeError, ValueError):
            raise UserError(f"{where}: {name} must be a number, got {_short(text)}") from None
        rule = _COUNT if name in ("epoch", "step") else None
        if name.endswith("accuracy") and math.isfinite(value):
            rule = _FRACTION
        if rule is not None and not rule.holds(value):
            raise UserError(f"{where}: {name} must be {rule.text}, got {_short(text)}")
        parsed[name] = int(value) if rule is _COUNT else value
    if parsed["epoch"] is None or parsed["step"] is None:
        raise UserError(f"{where}: epoch and step must be {_COUNT.text}")
    return parsed


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
