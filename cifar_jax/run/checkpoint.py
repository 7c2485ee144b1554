"""Saves checkpoints with Orbax in the background, and restores those that are undamaged.

Orbax's CheckpointManager is not used. It reads every checkpoint's metrics when it is opened, so one
damaged file would make all checkpoints unreadable; and it refuses to save a step below the newest
checkpoint's, even if that one is damaged.
"""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from cifar_jax.errors import UserError
from cifar_jax.run import checksums
from cifar_jax.run.checkpoint_reader import CHECKSUMS, HAS_CHECKSUMS, CheckpointReader, Damaged
from cifar_jax.run.storage import plain_path, saved_steps, writing
from cifar_jax.runtime import distributed

# Folders that Orbax writes to, and those that are being deleted, have this in their names.
_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints(CheckpointReader):
    """The checkpoints of one run, opened by `open_checkpoints`.

    A checkpoint holds a tree of arrays and a `meta` dict of JSON values. It is renamed to its final
    name once it is complete, so a process killed while writing leaves the previous one intact.
    """

    def __init__(self, directory: Path, path: Path, writer: ThreadPoolExecutor):
        """Opens a folder.

        Args:
          directory: See CheckpointReader.
          path: See CheckpointReader.
          writer: The thread that saves.
        """
        super().__init__(directory, path)
        self._writer = writer
        self._writing: Future | None = None
        self._lock = threading.Lock()
        # Guarded by the lock: the saves that the thread has not begun, from the oldest to the
        # newest; whether the thread will look for more; and the step of the newest save.
        self._waiting: list[_Save] = []
        self._is_writing = False
        self._newest: int | None = None

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None if there is none."""
        if self._newest is not None:
            return self._newest
        return max(saved_steps(self._path), default=None)

    def save(self, step: int, state: Any, meta: dict, score: float | None = None) -> None:
        """Starts saving, and returns once a copy of the arrays has been started on their devices.

        Training never waits for a disk: while an earlier checkpoint is being written, this one
        waits, and of those that wait only the newest and the best are written.

        Keeps the latest two checkpoints, in case the latest is damaged, and the best of those
        before the latest: the one with the highest score, or the earliest of several equal ones.

        Args:
          step: Number of optimizer steps taken. An existing checkpoint of this step is kept.
          state: Tree of arrays that are replicated on all devices.
          meta: JSON values, which must not be modified: they are serialized in the background.
          score: See above. Without a score, a checkpoint is kept only while it is one of the latest
            two.

        Raises:
          UserError: If an earlier checkpoint could not be saved, for example because the disk is
            full.
        """
        if step == self.latest_step:
            return
        with self._lock:
            is_idle = not self._is_writing
        if is_idle:
            self.wait()  # raises the error of the last save
        save = _Save(step, _copy(state), meta, score)
        with self._lock:
            self._newest = step
            self._waiting = _worth_writing([*self._waiting, save])
            if not self._is_writing:
                self._is_writing = True
                self._writing = self._writer.submit(self._write_waiting)

    def wait(self) -> None:
        """Waits until nothing is left to write; raises UserError if a save failed."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            finally:
                self._newest = None

    def _write_waiting(self) -> None:
        try:
            while (save := self._next()) is not None:
                state = jax.tree.map(_to_host, save.state)
                self._write(save.step, state, save.meta, save.score)
        except BaseException:
            with self._lock:
                self._waiting, self._is_writing = [], False
            raise

    def _next(self) -> "_Save | None":
        """Returns the oldest waiting save, or None if there is none, which ends the writing."""
        with self._lock:
            self._is_writing = bool(self._waiting)
            return self._waiting.pop(0) if self._waiting else None

    def _write(self, step: int, state: Any, meta: dict, score: float | None) -> None:
        sums = {"step": step, "arrays": checksums.of_arrays(state), "meta": checksums.of_json(meta)}
        items = {
            "state": ocp.args.StandardSave(state),
            "meta": ocp.args.JsonSave(meta | {HAS_CHECKSUMS: True, CHECKSUMS: sums}),
        }
        if score is not None:
            items["metrics"] = ocp.args.JsonSave({"score": score, "step": step})
        # Files and indices take a little more than the arrays, which hardly compress.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
        try:
            with writing(self._directory, size):
                self._orbax.save(self._path / str(step), args=ocp.args.Composite(**items))
        except UserError:
            _wait_for_orbax()
            self._delete_temporary()  # frees space if the disk is full
            raise
        self._verify(step, state)
        for other in set(saved_steps(self._path)) - self._kept():
            self._delete(other)

    def _verify(self, step: int, state: Any) -> None:
        """Reads back the smallest array and `meta`, which shows that the files can be found."""
        leaves, tree = jax.tree.flatten(state)
        smallest = min(range(len(leaves)), key=lambda i: leaves[i].nbytes)
        target = [leaf if i == smallest else ocp.PLACEHOLDER for i, leaf in enumerate(leaves)]
        item = jax.tree.unflatten(tree, target)
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        with self.reading(step):
            args = ocp.args.PyTreeRestore(item, restore_args=restore_args)
            self._pytree.restore(self._path / str(step) / "state", args=args)
        self.read_meta(step)

    def _kept(self) -> set[int]:
        """Returns the steps of the latest two checkpoints and of the best one before the latest.

        A checkpoint whose score cannot be read may be the best one, so it is kept too.
        """
        steps = saved_steps(self._path)
        scores, unreadable = {}, []
        for step in steps[:-1]:
            try:
                score = self._score(step)
            except (OSError, ValueError, TypeError, KeyError):
                unreadable.append(step)
            else:
                if score is not None:
                    scores[step] = score
        best = max(scores, key=lambda step: (scores[step], -step), default=steps[-1])
        return {*steps[-2:], best, *unreadable}

    def _score(self, step: int) -> float | None:
        """Returns the score of a checkpoint, or None if it was saved without one."""
        path = self._path / str(step) / "metrics" / "metrics"
        if not path.parent.exists():
            return None
        return float(json.loads(path.read_text())["score"])

    def _delete(self, step: int) -> None:
        # Renamed first, so that a process killed now does not leave a partial checkpoint.
        aside = self._path / f"{step}{_TEMPORARY}-deleted"
        (self._path / str(step)).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)  # open_checkpoints deletes what is left

    def _delete_temporary(self) -> None:
        for path in self._path.glob(f"*{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, step: int, target: Any, sharding: jax.sharding.Sharding) -> tuple[Any, dict]:
        """See CheckpointReader; first waits for the save that is under way."""
        self.wait()
        return super().restore(step, target, sharding)

    def restore_latest(
        self, target: Any, sharding: jax.sharding.Sharding, is_valid: Callable[[dict], bool]
    ) -> tuple[int, Any, dict] | None:
        """Restores the newest undamaged checkpoint, and deletes newer ones, which are damaged.

        Args:
          target: See `restore`.
          sharding: See `restore`.
          is_valid: Whether a `meta` has the expected fields.

        Returns:
          The step, the tree of arrays and `meta`, or None if there is no checkpoint.

        Raises:
          UserError: If no checkpoint can be restored.
        """
        self.wait()
        damaged: dict[int, Damaged] = {}
        for step in reversed(saved_steps(self._path)):
            try:
                state, meta = self.restore(step, target, sharding)
                if not is_valid(meta):
                    raise self.damaged(step, "its meta lacks fields")
            except Damaged as error:
                damaged[step] = error
                continue
            for other, error in damaged.items():
                print(f"{error}: removed, and step {step:,} restored")
                self._delete(other)
            return step, state, meta
        if damaged:
            first = next(iter(damaged.values()))
            raise UserError(
                f"{first}. No other checkpoint is left: remove {self._directory} to train from the "
                "start"
            ) from first
        return None


def _wait_for_orbax() -> None:
    """Waits until the other writes of a failed save have ended, so that no more errors follow."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread, timeout=10)  # thread.join would raise the thread's error


class _Save(NamedTuple):
    step: int
    state: Any
    meta: dict
    score: float | None


def _worth_writing(saves: list[_Save]) -> list[_Save]:
    """Returns the saves to write: the best (the earliest of equal ones), then the newest."""
    scored = [save for save in saves if save.score is not None]
    best = max(scored, key=lambda save: save.score, default=saves[-1])
    return [best, saves[-1]] if best is not saves[-1] else [best]


@jax.jit
def _copy(state: Any) -> Any:
    """Returns a copy on the devices, because training overwrites the arrays of its state."""
    return jax.tree.map(jnp.copy, state)


def _to_host(array: jax.Array) -> np.ndarray | jax.Array:
    """Returns an array, or a typed key, in the host's memory."""
    values = np.asarray(checksums.on_host(array))
    if distributed.is_key(array):
        # Orbax accepts an array of a single process only if there are no others.
        values = distributed.replicated(values) if distributed.num_processes() > 1 else values
        return jax.random.wrap_key_data(values, impl=jax.random.key_impl(array))
    return values


@contextlib.contextmanager
def open_checkpoints(directory: str | Path, *, read_only: bool = False) -> Iterator[Checkpoints]:
    """Opens or creates a run's checkpoint folder, and on exit waits for a save that is under way.

    Args:
      directory: Folder of the checkpoints.
      read_only: Whether to leave the folder unchanged, because another process may be saving to it.

    Raises:
      UserError: On exit, if the last checkpoint could not be saved.
    """
    directory = Path(directory).resolve()  # Orbax accepts only absolute paths
    verbosity = logging.get_verbosity()
    with plain_path(directory) as path, ThreadPoolExecutor(max_workers=1) as writer:
        checkpoints = Checkpoints(directory, path, writer)
        if not read_only:
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            checkpoints._delete_temporary()
        logging.set_verbosity(logging.FATAL)  # Orbax logs the exceptions that it also raises
        try:
            yield checkpoints
        finally:
            try:
                checkpoints.wait()
            finally:
                logging.set_verbosity(verbosity)
