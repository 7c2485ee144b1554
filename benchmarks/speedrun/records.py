"""The published results that the recipes in configs/speedrun/ are measured against."""

from typing import NamedTuple

# T1 times whitening, augmentation, training and the last evaluation; T2 times initialization, the
# upload of the data, whitening, augmentation and training.
CLOCKS = ("T1", "T2")


class Published(NamedTuple):
    """A published result.

    Attributes:
      clock: One of CLOCKS.
      accuracy: The mean accuracy on the test set, as a fraction.
      seconds: The time of a run, by that clock.
      device: The GPU.
      source: The repository that published it.
    """

    clock: str
    accuracy: float
    seconds: float
    device: str
    source: str


_AIRBENCH = "KellerJordan/cifar10-airbench"
PUBLISHED = {
    "airbench94": Published("T1", 0.9401, 2.59, "A100, 400 W", _AIRBENCH),
    "airbench95": Published("T1", 0.9501, 10.4, "A100-SXM, 80 GB", _AIRBENCH),
    "airbench96": Published("T1", 0.9603, 34.7, "A100-SXM, 80 GB", _AIRBENCH),
    "cifar100_75": Published(
        "T2", 0.7519, 3.50, "A100-PCIe, 300 W", "AIDDA-Institute/CIFAR-100-speedrun (unverified)"
    ),
}
