"""The result of a run of a speedrun."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The time, accuracies and loss of one run.

    Attributes:
      seconds: The time of the run, by the clock T1 or T2.
      accuracy: The accuracy on the test set, as a fraction, with the config's number of views.
      single_view_accuracy: The same with only one view, the unchanged image.
      train_loss: The mean training loss of the last epoch.
    """

    seconds: float
    accuracy: float
    single_view_accuracy: float
    train_loss: float
