"""Checks the values in a run's files, which may have been edited, mixed up or truncated."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar_jax import data
from cifar_jax.errors import UserError, quote
from cifar_jax.run.rules import COUNT, FRACTION, SUMMARY_OPTIONAL, TEXT, Rule, one_of

# The fields that a page needs, by their dotted name.
CONFIG = {
    "experiment": TEXT,
    "seed": COUNT,
    "num_epochs": COUNT,
    "model.name": TEXT,
    "data.name": one_of(data.NAMES),
    "data.label": one_of(data.LABELS),
    "data.val_fraction": FRACTION,
}


def fields(path: Path, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Checks the fields of config.json or summary.json.

    Args:
      path: The file.
      values: Its content; that of config.json is flattened.
      rules: CONFIG or SUMMARY, the fields that are needed.

    Raises:
      UserError: If a field is missing, or its value breaks its rule.
    """
    missing = [field for field in rules if field not in values]
    if missing:
        raise UserError(f"{path} is not from a cifar_jax run: it lacks {', '.join(missing)}")
    optional = {name: rule for name, rule in SUMMARY_OPTIONAL.items() if name in values}
    for name, rule in {**rules, **optional}.items():
        if not rule.holds(values[name]):
            raise UserError(f"{path}: {name} must be {rule.text}, got {quote(values[name])}")


def metrics_row(row: Mapping[str, str], where: str) -> dict[str, float | int | str | None]:
    """Returns a row of metrics.csv with its numbers parsed; empty values are None.

    Args:
      row: {column: value as a string}.
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
            raise UserError(f"{where}: {name} must be a number, got {quote(text)}") from None
        rule = COUNT if name in ("epoch", "step") else None
        if name.endswith("accuracy") and math.isfinite(value):
            rule = FRACTION
        if rule is not None and not rule.holds(value):
            raise UserError(f"{where}: {name} must be {rule.text}, got {quote(text)}")
        parsed[name] = int(value) if rule is COUNT else value
    if parsed["epoch"] is None or parsed["step"] is None:
        raise UserError(f"{where}: epoch and step must be {COUNT.text}")
    return parsed
