"""Restores a checkpoint, and verifies that it is what was saved."""

import contextlib
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cifar_jax.errors import UserError
from cifar_jax.run import checksums
from cifar_jax.run.storage import error_number
from cifar_jax.runtime import distributed

# Keys of `meta`: the checksums, and a flag that says that there are some, because older checkpoints
# have none. With both, a checkpoint in which one key is damaged is not mistaken for an older one.
CHECKSUMS, HAS_CHECKSUMS = "checksums", "has_checksums"
# The prefixes of the ValueErrors that TensorStore raises for corrupt files.
_CORRUPT = ("DATA_LOSS:", "NOT_FOUND:", "OUT_OF_RANGE:", "Error opening", "Error reading")


class Damaged(UserError):
    """The content of a checkpoint is not what was saved."""


class CheckpointReader:
    """Reads the checkpoints in a folder."""

    def __init__(self, directory: Path, path: Path):
        """Opens a folder.

        Args:
          directory: The folder's path, to show in messages.
          path: A path to the same folder that Orbax can handle; see `plain_path`.
        """
        self._directory, self._path = directory, path
        # Every process of a run may read the weights of another one, and only the first one writes.
        # Orbax must not wait for the others.
        processes = {jax.process_index()} if distributed.num_processes() > 1 else {0}
        only_this = ocp.options.MultiprocessingOptions(
            primary_host=None, active_processes=processes
        )
        only = {"multiprocessing_options": only_this}
        # If a folder could not be made in the background, Orbax's other threads would wait for it
        # for five minutes, and keep the process from ending.
        options = ocp.CompositeOptions(
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False), **only
        )
        handler = ocp.CompositeCheckpointHandler(
            composite_options=options,
            state=ocp.StandardCheckpointHandler(**only),
            meta=ocp.JsonCheckpointHandler(**only),
            metrics=ocp.JsonCheckpointHandler(filename="metrics", **only),
        )
        self._orbax = ocp.Checkpointer(handler, **only)
        self._pytree = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**only), **only)

    def restore(self, step: int, target: Any, sharding: jax.sharding.Sharding) -> tuple[Any, dict]:
        """Restores one checkpoint.

        Args:
          step: The step at which it was saved.
          target: Tree of arrays or shapes with the structure, shapes and dtypes that were saved.
          sharding: Sharding of every restored array, regardless of the devices that saved it.

        Returns:
          The tree of arrays, and `meta`.

        Raises:
          Damaged: If it is incomplete or does not match its checksums.
          UserError: If the files cannot be read, or `target` has other arrays, shapes or dtypes
            than what was saved. Without checksums, Orbax's ValueError propagates.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target
        )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        try:
            with self.reading(step):
                restored = self._orbax.restore(self._path / str(step), args=args)
            meta, sums = self._checked_meta(step, restored.meta)
            self._check_arrays(step, restored.state, sums)
        except ValueError as error:  # from Orbax, or Damaged: it converts arrays of another dtype
            if misfit := self._misfit(step, target):
                raise UserError(misfit) from error
            raise
        return restored.state, meta

    def _misfit(self, step: int, target: Any) -> str | None:
        """Returns what is wrong if a checkpoint holds other arrays than `target`, else None.

        Returns None if the checkpoint's own list of arrays cannot be read or differs from its
        checksums: then it is damaged, or from an older version.
        """
        found, expected = {}, {}
        with contextlib.suppress(Exception):
            saved = self._pytree.metadata(self._path / str(step) / "state").item_metadata.tree
            found = {
                n: (tuple(x.shape), np.dtype(x.dtype)) for n, x in checksums.named(saved).items()
            }
            expected = self._meta_and_checksums(step)[1]["arrays"]
        if not found or found.keys() != expected.keys():
            return None
        # Keys are saved as their raw data, whose shape depends on the implementation.
        wanted = {
            name: found.get(name) if distributed.is_key(leaf) else (leaf.shape, leaf.dtype)
            for name, leaf in checksums.named(target).items()
        }
        differing = [n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n)]
        if not differing:
            return None
        name = min(differing, key=lambda name: ("/params/" not in name, name))
        there, here = (
            "absent" if arrays.get(name) is None else f"{list(arrays[name][0])} {arrays[name][1]}"
            for arrays in (found, wanted)
        )
        return (
            f"the checkpoint {self._directory / str(step)} does not fit this network: "
            f"{name.removeprefix('state/')} is {there} in the checkpoint and {here} here. If the "
            "code of the network has changed, choose another --workdir"
        )

    def restore_arrays(self, step: int, fields: Sequence[str]) -> dict[str, Any]:
        """Returns some fields of the saved TrainState, nested dicts of NumPy arrays.

        Unlike `restore`, this needs neither the optimizer nor the shapes that were saved.

        Args:
          step: The step at which the checkpoint was saved.
          fields: The names of the fields, as in ("params", "batch_stats").

        Raises:
          Damaged: If the checkpoint is incomplete or does not match its checksums.
          UserError: If the files cannot be read.
        """
        orbax, path = self._pytree, self._path / str(step) / "state"
        with self.reading(step):
            saved = orbax.metadata(path).item_metadata.tree["state"]
            item = {"state": {field: saved[field] for field in fields if saved.get(field)}}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
            args = ocp.args.PyTreeRestore(item, restore_args=as_numpy, partial_restore=True)
            restored = orbax.restore(path, args=args)
        self._check_arrays(step, restored, self._meta_and_checksums(step)[1])
        return restored["state"]

    def read_meta(self, step: int) -> dict:
        """Returns only the `meta` of a checkpoint; raises the errors of `restore`."""
        return self._meta_and_checksums(step)[0]

    def _meta_and_checksums(self, step: int) -> tuple[dict, dict | None]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self.reading(step):
            saved = self._orbax.restore(self._path / str(step), args=args).meta
        return self._checked_meta(step, saved)

    def _check_arrays(self, step: int, arrays: Any, sums: dict | None) -> None:
        """Raises Damaged if an array does not match its checksum; older checkpoints have none."""
        if sums:
            crcs = checksums.of_arrays(arrays)
            differing = [n for n, crc in crcs.items() if sums["arrays"].get(n) != crc]
            if differing:
                raise self.damaged(step, f"the checksum of {', '.join(differing[:3])} differs")

    def _checked_meta(self, step: int, saved: Any) -> tuple[dict, dict | None]:
        """Returns a checkpoint's `meta` and its checksums; the latter are None if it has none."""
        if not isinstance(saved, dict):
            raise self.damaged(step, "its meta is not a JSON object")
        meta, sums = dict(saved), saved.get(CHECKSUMS)
        for key in (CHECKSUMS, HAS_CHECKSUMS):
            meta.pop(key, None)
        if len(meta) < len(saved) and not (
            isinstance(sums, dict)
            and sums.get("step") == step
            and sums.get("meta") == checksums.of_json(meta)
            and isinstance(sums.get("arrays"), dict)
        ):
            raise self.damaged(step, "the checksum of its meta differs")
        return meta, sums

    @contextlib.contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """Turns Orbax's exceptions into UserError, or Damaged if a file is missing or corrupt."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self.damaged(step, error) from error
        except OSError as error:
            # Any other OSError, such as a missing permission, says nothing about the content.
            raise UserError(self._describe(step, error)) from error
        except (KeyError, AttributeError) as error:  # a missing item, or unexpected JSON
            raise self.damaged(step, error) from error
        except ValueError as error:
            is_json = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
            if not is_json and not str(error).startswith(_CORRUPT):
                raise
            raise self._unreadable(step, error) from error
        except Exception as error:
            # Orbax raises a bare Exception if TensorStore cannot read the values of an array.
            if type(error) is not Exception:
                raise
            raise self._unreadable(step, error) from error

    def _unreadable(self, step: int, error: Exception) -> UserError:
        """Returns the error for an exception of TensorStore.

        A failure of the file system, such as a missing permission or a disk that does not answer,
        says nothing about the content.
        """
        if error_number(error) in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            return self.damaged(step, error)
        return UserError(self._describe(step, error))

    def damaged(self, step: int, reason: str | Exception) -> Damaged:
        """Returns the error for a checkpoint whose content is not what was saved."""
        return Damaged(self._describe(step, reason))

    def _describe(self, step: int, reason: str | Exception) -> str:
        lines = str(reason).replace(str(self._path), str(self._directory)).splitlines()
        text = lines[0][:200] if lines else type(reason).__name__
        return f"the checkpoint {self._directory / str(step)} cannot be read ({text})"
