"""Saves checkpoints with Orbax in the background, and restores the latest and the best one."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from cifar_jax.errors import UserError

# Status codes at the start of the ValueErrors that TensorStore raises for corrupt files.
_CORRUPT_STATUS = ("DATA_LOSS:", "NOT_FOUND:", "OUT_OF_RANGE:")


class Checkpoints:
    """The checkpoints of one run, opened by `open_checkpoints`.

    A checkpoint holds a tree of arrays and a `meta` dict of JSON values. It is renamed to its final
    name once it is complete, so a process killed while writing leaves the previous one intact.
    """

    def __init__(self, manager: ocp.CheckpointManager, read_only: bool):
        self._manager, self._is_read_only = manager, read_only

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict, score: float | None = None) -> None:
        """Starts saving, and returns once the arrays have been copied off the devices.

        Args:
          step: Number of optimizer steps taken. An existing checkpoint of this step is kept.
          state: Tree of arrays.
          meta: JSON values. They are serialized later, in the background, and must not be changed.
          score: The checkpoint with the highest score, the earliest if several are equal, is kept
            in addition to the latest one. None excludes this checkpoint from the comparison.
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
        """Restores one checkpoint.

        Args:
          step: The step at which it was saved.
          target: Tree of arrays or shapes with the structure, shapes and dtypes that were saved.
          sharding: Sharding of every restored array, regardless of the devices that saved it.

        Returns:
          The tree of arrays, and `meta`.

        Raises:
          UserError: If the files cannot be read. If `target` does not match what was saved, Orbax's
            ValueError propagates.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target
        )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        restored = self._restore(step, args)
        return restored.state, restored.meta

    def read_meta(self, step: int) -> dict:
        """Returns only the `meta` of a checkpoint.

        Raises:
          UserError: If it cannot be read.
        """
        return self._restore(step, ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def _restore(self, step: int, args: ocp.args.Composite) -> Any:
        try:
            return self._manager.restore(step, args=args)
        except OSError as error:
            # Any other OSError, such as a missing permission, says nothing about the content.
            is_corrupt = isinstance(error, FileNotFoundError)
            raise self._unreadable(step, error, is_corrupt) from error
        except KeyError as error:  # a missing item, or an index without its entries
            raise self._unreadable(step, error, is_corrupt=True) from error
        except ValueError as error:
            if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError) and not str(
                error
            ).startswith(_CORRUPT_STATUS):
                raise
            raise self._unreadable(step, error, is_corrupt=True) from error
        except Exception as error:
            # Orbax raises a bare Exception if TensorStore cannot read the values of an array.
            if type(error) is not Exception:
                raise
            raise self._unreadable(step, error, is_corrupt=True) from error

    def _unreadable(self, step: int, error: Exception, is_corrupt: bool) -> UserError:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        text = f"the checkpoint {self._manager.directory / str(step)} cannot be read ({reason})"
        if is_corrupt and not self._is_read_only:
            text += ". Remove that folder to continue from an earlier checkpoint or from the start"
        return UserError(text)


@contextlib.contextmanager
def open_checkpoints(directory: str | Path, *, read_only: bool = False) -> Iterator[Checkpoints]:
    """Opens or creates a run's checkpoint folder, and on exit waits for pending writes.

    Keeps the latest checkpoint and the one with the best score.

    Args:
      directory: Folder of the checkpoints.
      read_only: Whether to leave the folder unchanged, because another process may be saving to it.
    """

    def score(metrics: dict) -> tuple[float, int]:
        return metrics["score"], -metrics["step"]  # the earliest of equal scores

    options = ocp.CheckpointManagerOptions(
        best_fn=score,  # without it Orbax writes no metrics, and a restart forgets the best
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
    # Orbax accepts only absolute paths, and exiting without close() loses the last save.
    with ocp.CheckpointManager(Path(directory).resolve(), options=options) as manager:
        yield Checkpoints(manager, read_only)
