"""The files of a range test."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.range_test.plot import draw
from cifar_jax.range_test.suggestion import Point, flags_for, smooth, suggest
from cifar_jax.run.summary import write_json
from cifar_jax.runtime.environment import environment


def write(
    config: ConfigDict, points: Sequence[Point], folder: Path, asked: dict[str, Any]
) -> dict[str, Any]:
    """Writes range_test.csv, range_test.json and range_test.png.

    Args:
      config: as it was trained.
      points: of the curve.
      folder: made if need be.
      asked: goes into the JSON file; with "ended_by", as `sweep.run` returns it.

    Returns:
      What `suggest` finds, and with "flags" the flags that train with it, None where it finds none.
    """
    found = suggest(points, asked["ended_by"])
    has_rates = found["base_learning_rate"] is not None
    found["flags"] = flags_for(config, found) if has_rates else None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "range_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Point._fields, "smoothed_loss", "smoothed_accuracy"])
        curves = (smooth([p.loss for p in points]), smooth([p.accuracy for p in points]))
        writer.writerows([*point, *map(float, row)] for point, *row in zip(points, *curves))
    plain = json.loads(config.to_json())
    plain["data"]["dir"] = ""  # where the data lay is nobody else's concern
    everything = asked | found | environment() | {"config": plain}
    write_json(folder / "range_test.json", everything)
    draw(points, found, config.experiment, folder / "range_test.png")
    return found
