"""What the five write-ups published, by experiment: the numbers that ours stand beside."""

from typing import NamedTuple


class Published(NamedTuple):
    """One row of a write-up.

    Attributes:
      test_accuracy: fraction, None where the document shows a figure or a sentence only.
    """

    test_accuracy: float | None


PUBLISHED = {
    "assignment/cnn3": Published(0.5602),
    "coarse/cnn2_batch64": Published(0.496),
}
