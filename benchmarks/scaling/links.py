"""The time of an all-reduce among H100s: NVLink within a host of eight, InfiniBand across hosts.

Speeds and latencies are those of NVIDIA's data sheets, of NCCL's cost model and of published
nccl-tests; docs/scaling.md has the sources.
"""

import math
from typing import NamedTuple


class Protocol(NamedTuple):
    """A protocol of NCCL, with the constants of its cost model.

    Attributes:
      base: The latency of a call, in seconds.
      nvlink_latency: The latency of a step within a host, in seconds.
      network_latency: The latency of a step between hosts, in seconds.
      efficiency: The share of the bandwidth that carries data.
    """

    base: float
    nvlink_latency: float
    network_latency: float
    efficiency: float


class Links(NamedTuple):
    """The links of a cluster.

    Attributes:
      gpus_per_host: The number of GPUs in a host.
      nvlink: The bandwidth of a GPU's NVLink per direction, in bytes per second.
      network: The bandwidth of a GPU's network adapter per direction, in bytes per second.
      protocols: The protocols to choose from.
    """

    gpus_per_host: int
    nvlink: float
    network: float
    protocols: tuple[Protocol, ...]


# NCCL's src/graph/tuning.cc: baseLatencies of rings, hwLatencies of rings over NVLink and of trees
# over the network. LL sends 4 bytes of flags with 4 bytes of data, LL128 8 with 120.
PROTOCOLS = {
    "LL": Protocol(6.6e-6, 0.6e-6, 5.0e-6, 1 / 2),
    "LL128": Protocol(14.0e-6, 1.9e-6, 8.5e-6, 120 / 128),
    "Simple": Protocol(8.4e-6, 3.4e-6, 14.0e-6, 1.0),
}
# Bandwidths that NCCL reaches: 370 of NVLink's 450 GB/s, 46 of the adapter's 50 GB/s.
H100 = Links(8, 370e9, 46e9, tuple(PROTOCOLS.values()))


def all_reduce(num_bytes: float, num_gpus: int, links: Links = H100) -> float:
    """Returns the seconds that an all-reduce takes with the fastest protocol.

    Within a host, a ring reduces and scatters the array, and gathers it again at the end. In
    between, each GPU all-reduces its part with its peers in the other hosts, in a number of steps
    that is logarithmic in the number of hosts.

    Args:
      num_bytes: The size of the array, which every GPU holds.
      num_gpus: The number of GPUs: at most those of one host, or all GPUs of 2, 4, 8, ... hosts.
      links: The cluster.

    Raises:
      ValueError: If the GPUs do not fill their hosts, or the number of hosts is not a power of two.
    """
    if num_gpus == 1:
        return 0.0
    per_host = min(num_gpus, links.gpus_per_host)
    num_hosts, rest = divmod(num_gpus, per_host)
    if rest or num_hosts & (num_hosts - 1):
        raise ValueError(f"{num_gpus} GPUs are not a power of two of hosts with {per_host}")
    part = num_bytes / per_host

    def seconds(protocol: Protocol) -> float:
        local = protocol.nvlink_latency + part / (protocol.efficiency * links.nvlink)
        latency = 2 * math.log2(num_hosts) * protocol.network_latency
        volume = 2 * (num_hosts - 1) / num_hosts * part
        remote = latency + volume / (protocol.efficiency * links.network)
        return protocol.base + 2 * (per_host - 1) * local + remote

    return min(map(seconds, links.protocols))
