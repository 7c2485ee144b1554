"""Computes the features of whole splits once, so that training a head does not rerun the body.

With a frozen body and images that are neither augmented nor mixed, the features of an image are the
same at every step. They stay on the devices instead of the images.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from cifar_jax.data import Split
from cifar_jax.errors import UserError
from cifar_jax.evaluate import make_evaluate
from cifar_jax.step import Batch, EvalStep, TrainState


class Features:
    """The features of a split's images, computed when they are first needed.

    The engine, or the evaluation of the split, calls this object once to receive them. The object
    then drops its reference, because pmap makes a copy in another form, and the original would
    take as much memory again.

    Attributes:
      shape: (N, D).
      dtype: float32.
    """

    dtype = jnp.dtype(jnp.float32)

    def __init__(
        self,
        features_step: EvalStep,
        split: Split,
        state: TrainState,
        *,
        batch_size: int,
        mesh: jax.sharding.Mesh,
    ):
        """Computes nothing yet.

        Args:
          features_step: See step.make_features_step.
          split: The images, on the host.
          state: The shapes of a state.
          batch_size: The number of images per step, over all devices.
          mesh: The devices that compute and hold the features.
        """
        self._features_step, self._split = features_step, split
        self._batch_size, self._mesh = batch_size, mesh
        batch = jax.eval_shape(lambda: Batch(split.images[:1], split.labels[:1], jnp.ones(1)))
        features, _ = jax.eval_shape(features_step, state.params, state.batch_stats, batch)
        self.shape = (len(split.images), features.shape[1])
        self._features: jax.Array | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The memory that they take on a device, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def temporary_bytes(self) -> int:
        """The additional memory on a device while they are computed, in bytes.

        It is for the images and, because the last batch is padded, a copy of the features. The copy
        for pmap is made later and needs less.
        """
        return self.nbytes + self._split.images.nbytes

    def compute(self, state: TrainState) -> None:
        """Computes the features, and keeps them until this object is called.

        Args:
          state: Any replicated state of the run: all of them have the same body.
        """
        compute = make_evaluate(
            self._features_step, *self._split, batch_size=self._batch_size, mesh=self._mesh
        )
        _, self._features = compute(state)
        jax.block_until_ready(self._features)

    def __call__(self, state: TrainState) -> jax.Array:
        """Hands over the features [N, D] float32, replicated over the devices.

        Args:
          state: See `compute`, which is called first if it has not been.
        """
        if self._features is None:
            self.compute(state)
        features, self._features = self._features, None
        return features


def of_splits(
    features_step: EvalStep,
    splits: Mapping[str, Split],
    state: TrainState,
    *,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> dict[str, Features]:
    """Returns the features of several splits, by name; see Features for the arguments.

    Raises:
      UserError: If they do not fit into the memory of the devices.
    """
    features = {
        name: Features(features_step, split, state, batch_size=batch_size, mesh=mesh)
        for name, split in splits.items()
    }
    _check_memory(features, mesh)
    return features


def _check_memory(splits: Mapping[str, Features], mesh: jax.sharding.Mesh) -> None:
    """Raises UserError unless the features of all splits fit into the memory of the devices."""
    needed = sum(features.nbytes for features in splits.values())
    needed += max(features.temporary_bytes for features in splits.values())
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        needed *= len(mesh.local_devices)  # virtual devices share the memory
    free = _free_bytes(device)
    if free is not None and needed > free:
        num_images = sum(map(len, splits.values()))
        num_features = next(iter(splits.values())).shape[1]
        raise UserError(
            f"{num_features:,} features for each of {num_images:,} images need {needed / 1e9:.1f} "
            f"GB of memory, but only {free / 1e9:.1f} GB are free. Set "
            "transfer.cache_features=False, or choose a smaller augment.resize"
        )


def _free_bytes(device: jax.Device) -> int | None:
    """Returns the free memory of a device in bytes, or None if it is unknown."""
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("MemAvailable:")]
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return None


def compute_all(splits: Mapping[str, Features], state: TrainState) -> None:
    """Computes the features of all splits, and prints how long that took.

    Args:
      splits: The features of each split.
      state: A replicated state of the run.
    """
    num_images = sum(map(len, splits.values()))
    num_features = next(iter(splits.values())).shape[1]
    print(f"computing {num_features:,} features for each of {num_images:,} images", flush=True)
    start = time.perf_counter()
    for features in splits.values():  # one by one, because each needs memory for its images
        features.compute(state)
    seconds = time.perf_counter() - start
    megabytes = sum(features.nbytes for features in splits.values()) / 1e6
    print(f"features computed in {seconds:.1f} s; they take {megabytes:,.0f} MB", flush=True)
