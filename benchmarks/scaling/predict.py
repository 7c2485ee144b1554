"""Adds up the step time on several GPUs: compute, BatchNorm's statistics and gradients."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from benchmarks.scaling.compiled import BATCH_SIZES
from benchmarks.scaling.links import H100, Links, all_reduce
from benchmarks.scaling.networks import FLOAT32_BYTES, sizes
from benchmarks.scaling.step_times import StepTime, StepTimes, compiled, from_logs
from benchmarks.throughput.measure import NUM_IMAGES
from cifar_jax.metrics import Metrics

NUM_GPUS = (1, 8, 64, 512)
# The batch size of one GPU, with which the others are compared.
BASE_BATCH_SIZE = max(BATCH_SIZES)
# The share of the backward pass in the compute time: it has two matrix products for each one in the
# forward pass, one for the gradient of the inputs and one for that of the kernel.
BACKWARD_SHARE = 2 / 3

# The critical batch size, beyond which larger batches mostly cost more images. The value for CIFAR
# is an assumption; see docs/scaling.md.
CRITICAL_BATCH_SIZE = 1000


def images_needed(batch_size: int) -> float:
    """Returns the number of images needed to reach a loss, relative to small batches.

    This is 1 + B / B_critical, the model of McCandlish et al. (2018).
    """
    return 1 + batch_size / CRITICAL_BATCH_SIZE


class Prediction(NamedTuple):
    """The parts of a step on several GPUs, in seconds.

    Attributes:
      network: The network.
      num_gpus: The number of GPUs.
      batch_size: The number of images per step and GPU.
      compute: The step time of one GPU with this number of images.
      source: Where `compute` comes from; see StepTime.
      statistics: The all-reduces of BatchNorm's statistics, which the next layer waits for. Under
        pmap there are none, because each replica has its own statistics.
      update: The all-reduces of the gradients, the metrics and, under pmap, the running statistics.
    """

    network: str
    num_gpus: int
    batch_size: int
    compute: float
    source: str
    statistics: float
    update: float

    @property
    def global_batch_size(self) -> int:
        """The number of images per step."""
        return self.num_gpus * self.batch_size

    @property
    def steps_per_epoch(self) -> float:
        """The images in an epoch / the images per step; below 1, a step exceeds an epoch."""
        return NUM_IMAGES / self.global_batch_size

    def step(self, overlap: bool) -> float:
        """Returns the step time.

        Args:
          overlap: Whether the gradients are reduced during the backward pass, rather than after
            it.
        """
        hidden = min(self.update, BACKWARD_SHARE * self.compute) if overlap else 0.0
        return self.compute + self.statistics + self.update - hidden

    def images_per_second(self, overlap: bool) -> float:
        """Returns the throughput of all GPUs together."""
        return self.global_batch_size / self.step(overlap)

    def efficiency(self, base: StepTime, overlap: bool) -> float:
        """Returns the throughput per GPU, relative to one GPU with BASE_BATCH_SIZE images.

        Args:
          base: The step time of that GPU.
          overlap: As for `step`.
        """
        per_gpu = self.images_per_second(overlap) / self.num_gpus
        return per_gpu / (BASE_BATCH_SIZE / base.seconds)


class Predictor:
    """Predicts step times from step times on one GPU and the all-reduces of a compiled program.

    Args:
      times: The step times on one GPU.
      statistics: For each network, the sizes in bytes of the all-reduces of BatchNorm's statistics
        in the forward pass.
      links: The cluster.
    """

    def __init__(
        self, times: StepTimes, statistics: Mapping[str, Sequence[int]], links: Links = H100
    ):
        self._times, self._statistics, self._links = times, statistics, links

    def base(self, network: str) -> StepTime:
        """Returns the step time of one GPU with BASE_BATCH_SIZE images."""
        return self._times.at(network, BASE_BATCH_SIZE)

    def predict(
        self, network: str, num_gpus: int, batch_size: int, parallel: str = "jit"
    ) -> Prediction:
        """Predicts a step.

        Args:
          network: One of NETWORKS.
          num_gpus: The number of GPUs.
          batch_size: The number of images per step and GPU.
          parallel: "jit" with statistics of the whole batch, or "pmap" with those of each replica.
        """
        exchanged = sizes(network)

        def reduce(*num_bytes: float) -> float:
            return sum(all_reduce(size, num_gpus, self._links) for size in num_bytes)

        if parallel == "jit":
            # The backward pass has as many all-reduces as the forward pass, for the sums that the
            # gradients of a layer's scale, bias and inputs need.
            statistics = 2 * reduce(*self._statistics[network])
            update = reduce(exchanged.gradient_bytes, _metrics_bytes())
        else:
            # XLA combines all of them into one all-reduce; gradients are float32 by then.
            statistics = 0.0
            gradient_bytes = FLOAT32_BYTES * exchanged.num_params
            update = reduce(gradient_bytes + exchanged.statistics_bytes + _metrics_bytes())
        time = self._times.at(network, batch_size)
        return Prediction(
            network=network,
            num_gpus=num_gpus,
            batch_size=batch_size,
            compute=time.seconds,
            source=time.source,
            statistics=statistics,
            update=update,
        )

    def weak(self, network: str, num_gpus: int, parallel: str = "jit") -> Prediction:
        """Predicts a step with BASE_BATCH_SIZE images per GPU."""
        return self.predict(network, num_gpus, BASE_BATCH_SIZE, parallel)

    def strong(self, network: str, num_gpus: int, parallel: str = "jit") -> Prediction:
        """Predicts a step with BASE_BATCH_SIZE images over all GPUs."""
        return self.predict(network, num_gpus, BASE_BATCH_SIZE // num_gpus, parallel)


def _metrics_bytes() -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(Metrics.empty)))


def predictor() -> Predictor:
    """Returns the predictor with the step times and compiled programs of the logs."""
    statistics = {
        r["network"]: [a["num_bytes"] for a in r["all_reduces"] if a["is_forward"]]
        for r in compiled()
        if "all_reduces" in r
    }
    return Predictor(from_logs(), statistics)
