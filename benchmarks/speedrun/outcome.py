"""What a speedrun reports, in JAX and in PyTorch."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The result of one run.

    Attributes:
      seconds: The time by the clock of the measurement, T1 or T2.
      accuracy: The accuracy on the test set with the config's views, in [0, 1].
      single_view_accuracy: The accuracy on the test set when each image is seen once, in [0, 1].
      train_loss: The mean training loss per example in the last epoch, with label smoothing.
    """

    seconds: float
    accuracy: float
    single_view_accuracy: float
    train_loss: float
