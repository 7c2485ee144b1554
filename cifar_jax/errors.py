"""Errors that the user can fix."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """An invalid input or a missing file; the message states the rule, the value and the fix.

    Commands print it without a traceback. Any other exception is a bug and keeps its traceback.
    """


def require_utf8(workdir: Path) -> None:
    """Raises UserError for a workdir whose path is not UTF-8: TensorStore cannot open it."""
    try:
        str(workdir.resolve()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the path of --workdir {workdir} must be UTF-8: choose or rename a folder"
        ) from None


# {name in another library: our name}, for names that are spelled too differently to match.
_ALIASES = {
    "optim.lr": "optim.learning_rate",
    "horizontal_flip": "flip",
    "random_horizontal_flip": "flip",
    "random_crop": "crop",
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "best": "val",
}


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not in `known`; it lists the closest matches first.

    >>> str(unknown("model", "resnet8", ["cnn2", "resnet18"]))
    "unknown model 'resnet8': did you mean 'resnet18'? Known: resnet18, cnn2"
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if (alias := _ALIASES.get(str(name))) in known:
        close = [alias, *(k for k in close if k != alias)]
    hint = f"did you mean {close[0]!r}? " if close else ""
    ordered = close + [k for k in known if k not in close]
    # With a hint, list at most 12 names: the hint would be lost before a longer list.
    shown = ordered[:12] if close else ordered
    more = f", and {len(ordered) - len(shown)} more" if len(shown) < len(ordered) else ""
    return UserError(f"unknown {kind} {str(name)!r}: {hint}Known: {', '.join(shown)}{more}")
