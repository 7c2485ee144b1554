"""Reads published results, and checks whether a run is comparable with them."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from cifar_jax.errors import UserError, is_number
from cifar_jax.report.read import Run
from cifar_jax.run.workdir import what_counts


class Published(NamedTuple):
    """One experiment of a write-up; fields that the write-up does not state are None or "".

    Attributes:
      label: The labels that are predicted, as in the config's data.label.
      test_accuracy: Test accuracy as a fraction.
      test_loss: Test loss, a cross-entropy in nats.
      epochs: Epochs of training.
      seconds: Training time of all epochs.
      other: What the write-up says about the result instead of a number.
    """

    label: str = "fine"
    test_accuracy: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    other: str = ""


class PublishedResult(NamedTuple):
    """The published result of a run's experiment.

    Attributes:
      record: The published result.
      reason: Why the two cannot be compared, or "" if they can.
    """

    record: Published
    reason: str


def read(path: Path) -> dict[str, Published]:
    """Returns the published results in a TOML file by experiment.

    Raises:
      UserError: If the file cannot be read.
    """
    try:
        experiments = tomllib.loads(path.read_text(encoding="utf-8"))["experiments"]
        known = {name: Published(**fields) for name, fields in experiments.items()}
        for name, record in known.items():
            _check(name, record)
        return known
    except OSError as error:
        raise UserError(f"--published {path} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"--published {path} holds no published results: {error}") from error


def _check(name: str, record: Published) -> None:
    """Raises ValueError if a field of a published result has a value of the wrong type."""
    for field in ("test_accuracy", "test_loss", "epochs", "seconds"):
        value = getattr(record, field)
        if value is not None and not is_number(value):
            raise ValueError(f"{field} of {name} must be a number, got {value!r}")
    for field in ("label", "other"):
        if not isinstance(getattr(record, field), str):
            raise ValueError(f"{field} of {name} must be a string, got {getattr(record, field)!r}")


def of_run(
    run: Run, known: dict[str, Published], written: dict[str, Any]
) -> PublishedResult | None:
    """Returns the published result of a run's experiment, or None if there is none.

    Args:
      run: The run.
      known: The published results by experiment.
      written: The settings of the experiment's config file; empty if there is no such file.
    """
    record = known.get(run.config["experiment"])
    if record is None:
        return None
    if not written:
        return PublishedResult(record, f"there is no configs/{run.config['experiment']}.py")
    # Fields that an older run lacks are taken from the file.
    settings = what_counts(written | run.config)
    lengths = settings["num_epochs"], written["num_epochs"]
    return PublishedResult(record, why_not_comparable(record, changed(settings, written), *lengths))


def changed(settings: dict[str, Any], written: dict[str, Any]) -> tuple[str, ...]:
    """Returns the settings of a run that differ from its config file, as "name=value".

    Args:
      settings: The run's settings, as returned by `what_counts`; num_epochs is ignored.
      written: The settings of the config file.
    """
    return tuple(
        f"{name}={value}"
        for name, value in settings.items()
        if name != "num_epochs"
        and value != written.get(name)
        and not (name == "dtype" and written[name] == "auto")
    )


def why_not_comparable(
    published: Published, changed: tuple[str, ...], num_epochs: int, planned: int
) -> str:
    """Returns why a run cannot be compared with the published result, or "" if it can.

    Args:
      published: The published result of its experiment.
      changed: Settings that differ from the config file.
      num_epochs: The epochs in the run's config, even if a callback stopped it earlier.
      planned: The epochs in the config file.
    """
    if published.test_accuracy is None:
        return "no number published"
    if changed:
        return "different settings"
    if num_epochs != planned:
        return "shortened" if num_epochs < planned else "extended"
    return ""
