"""Errors that the user can fix."""

import difflib
from collections.abc import Iterable
from typing import Any

# Longer messages would fill a terminal and bury their point.
_MAX_CHARACTERS = 800
# Maximum total length of the names that `unknown` lists.
_MAX_LISTED = 400


class UserError(ValueError):
    """An invalid input or a missing file; the message states the rule, the value and the fix.

    Commands print it without a traceback. Any other exception is a bug and keeps its traceback. A
    very long message, such as one that quotes a long value, is shortened in the middle.
    """

    def __init__(self, message: str):
        super().__init__(shorten(message, _MAX_CHARACTERS))


# {name in another library: name here}, for names whose spellings are too different to match.
_ALIASES = {
    "optim.lr": "optim.learning_rate",
    "horizontal_flip": "flip",
    "random_horizontal_flip": "flip",
    "random_crop": "crop",
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "best": "val",
}


def shorten(text: str, limit: int) -> str:
    """Returns `text` or, if it exceeds `limit` characters, its start and end around "..."."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 5]} ... {text[-tail:]}"


def quote(value: Any, limit: int = 80) -> str:
    """Returns repr(value) for a message, shortened."""
    try:
        return shorten(repr(value), limit)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits in decimal
        return shorten(hex(value), limit) if isinstance(value, int) else "a very long number"


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Returns up to three of the known names that may be a misspelled `name`, the closest first."""
    known = list(known)
    if len(name) > 100:
        return []
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if (alias := _ALIASES.get(name)) in known:
        close = [alias, *(k for k in close if k != alias)]
    return close


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not in `known`; it lists the closest matches first.

    >>> str(unknown("model", "resnet8", ["cnn2", "resnet18"]))
    "unknown model 'resnet8'; did you mean 'resnet18'? Known: resnet18, cnn2"
    """
    known = sorted(known)
    close = closest(str(name), known)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    ordered = close + [k for k in known if k not in close]
    # With a hint, list at most 12 names: a longer list would bury the hint.
    shown = ordered[:12] if close else ordered
    while len(shown) > 1 and len(", ".join(shown)) > _MAX_LISTED:
        shown.pop()
    more = f", and {len(ordered) - len(shown)} more" if len(shown) < len(ordered) else ""
    return UserError(f"unknown {kind} {quote(str(name))}{hint} Known: {', '.join(shown)}{more}")


def check_kind(field: str, value: Any, default: Any) -> None:
    """Checks that a value is of the same kind as a default: an integer, a number, a list, etc.

    Where the default is a float, an integer is valid too, but NaN and infinity are not.

    Args:
      field: The name of the field, for the message.
      value: The value to check.
      default: A bool, int, float or str, or a tuple, which stands for any list of numbers.

    Raises:
      UserError: If the value is of a different kind.
    """
    if isinstance(default, bool):
        kind, is_valid = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        kind, is_valid = "a whole number", _is_int(value)
    elif isinstance(default, float):
        kind, is_valid = "a number", is_number(value)
    elif isinstance(default, tuple):
        kind = "a list of numbers, as in (30, 60)"
        is_valid = isinstance(value, tuple | list) and all(map(is_number, value))
    else:
        kind, is_valid = "a string", isinstance(value, str)
    if not is_valid:
        raise UserError(f"{field} must be {kind}, got {quote(value)}")


def is_number(value: Any) -> bool:
    """Returns whether a value is an int or a float that is finite in float32, and not a bool."""
    return (_is_int(value) or isinstance(value, float)) and abs(value) < 2**128 - 2**103


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
