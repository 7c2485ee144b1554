"""Checkpoints with Orbax: the latest and the best, saved in the background, restored exactly."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from cifar_jax.errors import UserError

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every file it writes.


class Checkpoints:
    """The checkpoints of one run. Make it with `open_checkpoints`.

    A checkpoint holds a tree of arrays and a `meta` dict of JSON values. It becomes visible by a
    rename once it is whole, so a process killed while writing leaves the one before.
    """

    def __init__(self, manager: ocp.CheckpointManager, read_only: bool):
        self._manager, self._is_read_only = manager, read_only

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict, score: float | None = None) -> None:
        """Starts saving; returns once the arrays are copied off the devices.

        Args:
          step: optimiser steps done. A step that is there already is left as it is.
          state: tree of arrays.
          meta: JSON values; read later, in the background, so nobody may change them.
          score: the checkpoint with the greatest is kept besides the latest, the earliest among
            equals; None for one that does not compete.
        """
        if step == self.latest_step:
            return
        metrics = None if score is None else {"score": score, "step": step}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
            metrics=metrics,
        )

    def restore(self, step: int, target: Any, sharding: jax.sharding.Sharding) -> tuple[Any, dict]:
        """Reads one checkpoint back.

        Args:
          step: which.
          target: tree of arrays or shapes of the same structure, shapes and dtypes.
          sharding: where to put every array, whatever devices it was saved from.

        Returns:
          The tree of arrays, and `meta`.

        Raises:
          UserError: where the files cannot be read or hold something else.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target
        )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
            raise self._unreadable(step, error) from error
        return restored.state, restored.meta

    def read_meta(self, step: int) -> dict:
        """Returns a checkpoint's `meta` alone.

        Raises:
          UserError: where it cannot be read.
        """
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        try:
            return self._manager.restore(step, args=args).meta
        except Exception as error:  # as above
            raise self._unreadable(step, error) from error

    def _unreadable(self, step: int, error: Exception) -> UserError:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        text = f"the checkpoint {self._manager.directory / str(step)} cannot be read ({reason})"
        if not self._is_read_only:
            text += ". Remove that folder to go on from an earlier one, or from the start"
        return UserError(text)


@contextlib.contextmanager
def open_checkpoints(directory: str | Path, *, read_only: bool = False) -> Iterator[Checkpoints]:
    """Opens, or makes, the folder of a run's checkpoints; on leaving waits until all is written.

    Keeps the latest checkpoint and the one with the best score.

    Args:
      directory: of the checkpoints.
      read_only: leaves the folder as it is, where another process may be saving.
    """

    def score(metrics: dict) -> tuple[float, int]:
        return metrics["score"], -metrics["step"]  # the earliest among equals

    options = ocp.CheckpointManagerOptions(
        best_fn=score,  # without it Orbax writes no metrics, and "best" is lost at a restart
        best_mode="max",
        preservation_policy=policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
            ]
        ),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
    )
    # Orbax takes absolute folders only, and leaving without close loses the last save.
    with ocp.CheckpointManager(Path(directory).resolve(), options=options) as manager:
        yield Checkpoints(manager, read_only)
