"""The folder of one run: whose it is, and whether the run in it is complete."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import flatten
from cifar_jax.errors import UserError
from cifar_jax.optim import schedules
from cifar_jax.summary import write_json

# What may differ between a run's start and its resumption: these fields say where and how fast it
# runs, never what comes out.
_FREE = ("data.dir", "steps_per_call", "eval_batch_size", "checkpoint.")


def claim(config: ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """Makes the workdir this config's, or checks that it is.

    Args:
      config: of the run about to start.
      workdir: absolute.

    Returns:
      The content of summary.json where the run in the workdir is complete, else None.

    Raises:
      UserError: where the workdir holds another run, or is no folder.
    """
    path = workdir / "config.json"
    wanted = _plain(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        previous = json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"--workdir {workdir} cannot be used: {error}") from error
    if previous is not None:
        _check_same(previous, wanted, workdir)
        summary_path = workdir / "summary.json"
        if summary_path.exists() and previous["num_epochs"] == wanted["num_epochs"]:
            return json.loads(summary_path.read_text())
        summary_path.unlink(missing_ok=True)
    write_json(path, wanted)
    return None


def _plain(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json())


def _check_same(previous: dict, wanted: dict, workdir: Path) -> None:
    old, new = flatten(previous), flatten(wanted)
    free = list(_FREE)
    # More epochs continue a run where the rates of those behind it stay what they were.
    if not schedules.depends_on_length(new["optim.schedule"]) and (
        new["num_epochs"] >= old.get("num_epochs", 0)
    ):
        free.append("num_epochs")
    differing = [
        f"{field} is {old.get(field, 'absent')!r} there and {new.get(field, 'absent')!r} here"
        for field in sorted(old | new)
        if old.get(field) != new.get(field) and not field.startswith(tuple(free))
    ]
    if differing:
        raise UserError(
            f"--workdir {workdir} holds another run: {'; '.join(differing)}. "
            "Choose another --workdir, or remove that folder"
        )
