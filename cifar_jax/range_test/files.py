"""Writes the files of a range test."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.range_test.plot import draw
from cifar_jax.range_test.suggestion import Point, fields_for, flags_for, smooth, suggest
from cifar_jax.run.summary import write_json
from cifar_jax.runtime.environment import environment


def write(
    config: ConfigDict, points: Sequence[Point], folder: Path, settings: dict[str, Any]
) -> dict[str, Any]:
    """Writes range_test.csv, range_test.json and range_test.png.

    Args:
      config: The config of the test.
      points: The points of the curve.
      folder: The folder to write to.
      settings: The test's settings, recorded in the JSON file, and the "ended_by" of `sweep.run`.

    Returns:
      The result of `suggest` with the additional entry "flags": the flags that train with the
      suggested learning rates, or None if none are suggested.
    """
    result = suggest(points, settings["ended_by"])
    result["flags"] = None
    if result["base_learning_rate"] is not None:
        fields = fields_for(config, result)
        result["flags"] = flags_for(fields)
        result["warnings"] += _refusal(config, fields)
        if re.search(r"\blearning_rate\s*=", config.optim.groups):
            factor = result["max_learning_rate"] / config.optim.learning_rate
            result["warnings"].append(
                "the flags do not change optim.groups, although the test scaled all learning "
                f"rates: multiply the learning rates in optim.groups by {factor:.3g}"
            )
    with (folder / "range_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Point._fields, "smoothed_loss", "smoothed_accuracy"])
        curves = (smooth([p.loss for p in points]), smooth([p.accuracy for p in points]))
        writer.writerows([*point, *map(float, row)] for point, *row in zip(points, *curves))
    plain = json.loads(config.to_json())
    plain["data"]["dir"] = ""  # a local path, which is useless elsewhere
    everything = settings | result | environment() | {"config": plain}
    write_json(folder / "range_test.json", everything)
    draw(points, result, config.experiment, folder / "range_test.png")
    return result


def _refusal(config: ConfigDict, fields: dict[str, str | float]) -> list[str]:
    """Returns a warning if a config would be refused with other fields of config.optim."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.optim.update(fields)
    try:
        experiment.checked(config)
    except UserError as error:
        return [f"with these flags, the config is refused: {error}"]
    return []
