"""Errors that the person at the keyboard can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong input or a missing file: the message states the rule, the value and the way out.

    The front doors print it without a traceback; every other exception is a bug and keeps its own.
    """


# What other libraries call things whose names here are not the nearest in letters.
_ELSEWHERE = {
    "optim.lr": "optim.learning_rate",
    "horizontal_flip": "flip",
    "random_horizontal_flip": "flip",
    "random_crop": "crop",
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "best": "val",
}


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among `known`, the nearest ones first.

    >>> str(unknown("model", "resnet8", ["cnn2", "resnet18"]))
    "unknown model 'resnet8': did you mean 'resnet18'? Known: resnet18, cnn2"
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if (meant := _ELSEWHERE.get(str(name))) in known:
        near = [meant, *(k for k in near if k != meant)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    ordered = near + [k for k in known if k not in near]
    # With a hint, a dozen are enough: a long list would bury it.
    shown = ordered[:12] if near else ordered
    more = f", and {len(ordered) - len(shown)} more" if len(shown) < len(ordered) else ""
    return UserError(f"unknown {kind} {str(name)!r}: {hint}Known: {', '.join(shown)}{more}")
