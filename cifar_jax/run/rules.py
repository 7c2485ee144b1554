"""Rules for the values in a run's files, which may have been edited, mixed up or truncated."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cifar_jax import data
from cifar_jax.errors import UserError, is_number, quote
from cifar_jax.selection import METRICS, SELECTED_ON


class Rule(NamedTuple):
    """What a value must be, in words and as a predicate."""

    text: str
    holds: Callable[[Any], bool]


def one_of(names: tuple[str, ...]) -> Rule:
    """Returns the rule that a value is one of several names."""
    return Rule(
        f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names
    )


def or_null(rule: Rule) -> Rule:
    """Returns a rule that also allows null."""
    return Rule(f"{rule.text} or null", lambda value: value is None or rule.holds(value))


TEXT = Rule("a string", lambda value: isinstance(value, str))
NUMBER = Rule("a finite number", is_number)
SECONDS = Rule("a number of seconds", lambda value: is_number(value) and value >= 0)
COUNT = Rule(
    "a whole number of at least 0",
    lambda value: is_number(value) and value == int(value) and 0 <= value < 2**53,
)
POSITIVE = Rule("a whole number above 0", lambda value: type(value) is int and 0 < value < 2**53)
FRACTION = Rule("a fraction from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)

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

# The fields of summary.json that reports need, and those that a summary may lack.
SUMMARY = {
    "test_accuracy": FRACTION,
    "test_loss": NUMBER,
    "top5_accuracy": FRACTION,
    "best_epoch": COUNT,
    "epochs": COUNT,
    "selected_on": one_of(SELECTED_ON),
    "num_params": COUNT,
    "model": TEXT,
    "step_time_ms": Rule(
        "an object with the numbers median and p95",
        lambda value: (
            isinstance(value, dict)
            and all(is_number(value.get(name)) for name in ("median", "p95"))
        ),
    ),
    "train_seconds": SECONDS,
    "compile_seconds": SECONDS,
    "device": Rule(
        "an object with count and kind",
        lambda value: (
            isinstance(value, dict)
            and TEXT.holds(value.get("kind"))
            and POSITIVE.holds(value.get("count"))
        ),
    ),
    "versions": Rule(
        "an object whose values are strings",
        lambda value: isinstance(value, dict) and all(map(TEXT.holds, value.values())),
    ),
    "git_commit": or_null(TEXT),
}
SUMMARY_OPTIONAL = {
    "experiment": TEXT,
    "steps": COUNT,
    "selected_by": one_of(METRICS),
    "train_accuracy": FRACTION,
    "val_accuracy": or_null(FRACTION),
    "images_per_second": NUMBER,
    "peak_memory_bytes": or_null(COUNT),
    "dtype": TEXT,
    "startup_seconds": Rule(
        "an object whose values are numbers",
        lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    ),
}


def check(path: Path, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
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
