"""Checks the values in a run's files, which may have been edited, mixed up or truncated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar_jax import data
from cifar_jax.errors import UserError, quote
from cifar_jax.run.rules import COUNT, FRACTION, SUMMARY_OPTIONAL, TEXT, Rule, one_of

# The fields of config.json that readers of a run need, by their dotted name.
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
