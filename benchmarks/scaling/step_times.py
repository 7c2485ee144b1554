"""The step time of a network on one H100 at any of the compiled batch sizes.

A measured step time is used as it is. At other batch sizes, the lower bound of the compiled program
is multiplied by the factor measured time / lower bound at the network's nearest measured batch
size. For a network that was never measured, the factor of the reference network is used.
"""

from typing import NamedTuple

from benchmarks import harness
from benchmarks.gpu_program import h100
from benchmarks.harness import Record
from benchmarks.scaling.networks import DTYPE, config_of
from benchmarks.table.speed import graphs, idle_records, records
from benchmarks.throughput import cases

# The network whose factor is used for networks that were never measured.
REFERENCE = "resnet18"


class StepTime(NamedTuple):
    """A step time on one GPU.

    Attributes:
      seconds: The time.
      source: "measured"; "scaled" if measured at another batch size; or "predicted".
    """

    seconds: float
    source: str


class StepTimes:
    """The step times of all networks.

    Args:
      measured: {(config, batch size): seconds} of steps that were measured on an H100.
      bounds: {(network, batch size): seconds}, lower bounds from compiled programs.
    """

    def __init__(
        self, measured: dict[tuple[str, int], float], bounds: dict[tuple[str, int], float]
    ):
        self._measured, self._bounds = measured, bounds

    def at(self, network: str, batch_size: int) -> StepTime:
        """Returns the step time of a network.

        Raises:
          KeyError: If a lower bound that is needed is not in the log.
        """
        own = self._measured_batches(network)
        if batch_size in own:
            return StepTime(own[batch_size], "measured")
        source = "scaled" if own else "predicted"
        factor = self._factor(network if own else REFERENCE, batch_size)
        return StepTime(factor * self._bounds[network, batch_size], source)

    def _measured_batches(self, network: str) -> dict[int, float]:
        config = config_of(network)
        return {batch: s for (name, batch), s in self._measured.items() if name == config}

    def _factor(self, network: str, batch_size: int) -> float:
        """Returns measured time / lower bound at the nearest batch size that has both."""
        own = self._measured_batches(network)
        both = [batch for batch in own if (network, batch) in self._bounds]
        if not both:
            raise KeyError(f"no step time of {network} was both measured and compiled")
        nearest = min(both, key=lambda batch: max(batch / batch_size, batch_size / batch))
        return own[nearest] / self._bounds[network, nearest]


def from_logs() -> StepTimes:
    """Returns the step times from the logs in benchmarks/results, the newest of each case."""
    measured = {}
    timed = [(r, r["step_ms"]) for r in graphs("on").values()]
    timed += [(r, r["step_time_ms"]) for r in idle_records("throughput")]
    for record, milliseconds in timed:
        device = record["device"]
        if (device["kind"], device["count"], record["dtype"]) == (h100.NAME, 1, DTYPE):
            key = cases.config_of(record["model"]), record["batch_size"]
            measured[key] = milliseconds["median"] / 1e3
    bounds = {
        (r["network"], r["batch_size"]): r["min_step_ms"] / 1e3
        for r in compiled()
        if r["num_gpus"] == 1
    }
    return StepTimes(measured, bounds)


def compiled() -> list[Record]:
    """Returns the records of compiled programs, the newest last."""
    return records(harness.RESULTS / "scaling.jsonl")
