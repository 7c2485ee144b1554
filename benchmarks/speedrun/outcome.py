"""What one run of a speedrun results in."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The result of one run.

    Attributes:
      seconds: The time of the run, by the clock T1 or T2.
      accuracy: The accuracy on the test set, as a fraction, with the config's number of views.
      single_view_accuracy: The same if each image is seen once.
      train_loss: The mean training loss of the last epoch.
    """

    seconds: float
    accuracy: float
    single_view_accuracy: float
    train_loss: float
