"""What was published of a run's experiment, and whether the run can be compared with it.

The numbers come in as a TOML file. A checkout has one, benchmarks/published.toml, and the config
files that say what a full run is; an installed copy has neither, and its reports do without.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from cifar_jax import config
from cifar_jax.errors import UserError
from cifar_jax.report.read import Run
from cifar_jax.run.workdir import FREE

_CHECKOUT = Path(__file__).resolve().parents[2]
FILE = _CHECKOUT / "benchmarks" / "published.toml"
# What two runs of one experiment may differ in.
_NOT_COMPARED = ("seed", *FREE)


class Published(NamedTuple):
    """One experiment of a write-up; None or "" where the document does not say.

    Attributes:
      label: what is predicted, as in the config's data.label.
      test_accuracy: fraction.
      test_loss: cross-entropy, nats.
      epochs: of training.
      seconds: of training, all epochs.
      other: what the document says of the result in the place of a number.
      caveat: why a full run of our config is not comparable with it.
    """

    label: str = "fine"
    test_accuracy: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    other: str = ""
    caveat: str = ""


class Beside(NamedTuple):
    """What was published of a run's experiment.

    Attributes:
      record: the published result.
      reason: why the two cannot be compared; "" where they can.
    """

    record: Published
    reason: str


def read(path: Path) -> dict[str, Published]:
    """Returns the published results in a TOML file, by experiment.

    Raises:
      UserError: where it cannot be read.
    """
    try:
        experiments = tomllib.loads(path.read_text(encoding="utf-8"))["experiments"]
        return {name: Published(**fields) for name, fields in experiments.items()}
    except OSError as error:
        raise UserError(f"--published {path} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"--published {path} holds no published results: {error}") from error


def of_run(run: Run, known: dict[str, Published]) -> Beside | None:
    """Returns what was published of a run's experiment; None where nothing was."""
    experiment = run.config["experiment"]
    record = known.get(experiment)
    path = _CHECKOUT / "configs" / f"{experiment}.py"
    if record is None:
        return None
    if not path.is_file():
        return Beside(record, f"there is no {path}")
    written = settings_of(path)
    settings = what_counts(written | run.config)  # a field that is younger had its default
    lengths = settings["num_epochs"], written["num_epochs"]
    return Beside(record, why_not_comparable(record, changed(settings, written), *lengths))


def settings_of(path: Path) -> dict[str, Any]:
    """Returns every field of a config file, flat, as JSON has them."""
    written = config.load(path)
    config.choose_model(written, written.model.name)
    return config.flatten(json.loads(written.to_json()))


def what_counts(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that runs of one experiment have in common."""
    return {k: v for k, v in settings.items() if not k.startswith(_NOT_COMPARED)}


def changed(settings: dict[str, Any], written: dict[str, Any]) -> tuple[str, ...]:
    """Returns what a run was given otherwise than the config file has it, "name=value".

    Args:
      settings: the run's, without those that do not count; num_epochs is passed over.
      written: of the config file.
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
    """Returns why a run cannot be compared with what was published; "" where it can.

    Args:
      published: of its experiment.
      changed: settings that the config file has otherwise.
      num_epochs: of the run's config, not those that a callback left of them.
      planned: num_epochs of the config file.
    """
    if published.test_accuracy is None:
        return "no number published"
    if changed:
        return "other settings"
    if num_epochs != planned:
        return "shortened" if num_epochs < planned else "prolonged"
    return published.caveat
