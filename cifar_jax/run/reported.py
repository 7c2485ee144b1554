"""Finds the checkpoint that holds the network of a run: that of the epoch that the run reports."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from cifar_jax import selection
from cifar_jax.config import completed
from cifar_jax.errors import UserError
from cifar_jax.run import checkpoint_meta, config_json
from cifar_jax.run.checkpoint import Checkpoints, open_checkpoints
from cifar_jax.run.workdir import is_at_work

T = TypeVar("T")


class Reported(NamedTuple):
    """The checkpoint of the epoch that a run reports.

    If the run is not complete, it is that of the best or latest epoch so far.

    Attributes:
      config: The run's config, with defaults for the fields that an older version lacked.
      checkpoints: The run's checkpoints, opened for reading.
      step: The step of the checkpoint.
      meta: The `meta` of the latest checkpoint.
      best: The row of the best epoch, if the run selects one; otherwise None.
    """

    config: ConfigDict
    checkpoints: Checkpoints
    step: int
    meta: Mapping[str, Any]
    best: Mapping[str, Any] | None

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows of metrics.csv, one for each epoch done."""
        return self.meta["rows"]


def read(workdir: Path, take: Callable[[Reported], T]) -> T:
    """Returns what a function reads from the reported checkpoint of a run.

    Raises:
      UserError: If the folder holds no trained network, or its files are damaged.
    """
    for _ in range(2):
        try:
            return _read(workdir, take)
        except UserError:
            # A run that is still training deletes old checkpoints as it saves new ones.
            if is_at_work(workdir) is False:
                raise
            time.sleep(0.2)
    return _read(workdir, take)


def _read(workdir: Path, take: Callable[[Reported], T]) -> T:
    with _opened(workdir) as found:
        return take(found)


@contextlib.contextmanager
def _opened(workdir: Path) -> Iterator[Reported]:
    config = completed(config_json.read(workdir))
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint")
    with open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        latest = checkpoints.latest_step
        if latest is None:
            raise UserError(f"{workdir} has no checkpoint")
        meta = checkpoints.read_meta(latest)
        if not checkpoint_meta.is_valid(meta):
            raise UserError(f"the checkpoint of step {latest} in {workdir} lacks required fields")
        best = selection.of_config(config).best(meta["rows"])
        step = latest if best is None else best["step"]
        yield Reported(config, checkpoints, step, meta, best)
