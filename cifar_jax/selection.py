"""Determines which epoch a run reports, and which split its curves follow."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The metrics of a split, as metrics.csv names them after "train_", "val_" or "test_".
METRICS = ("loss", "accuracy", "top5_accuracy")
SELECTED_ON = ("last", "train", "val", "test")

Row = Mapping[str, Any]


def curve_split(val_fraction: float | None) -> str:
    """Returns the split evaluated between epochs: "val" if there is one, otherwise "test"."""
    return "val" if val_fraction else "test"


class Selection(NamedTuple):
    """The rule by which a run picks the epoch that it reports.

    Attributes:
      selected_on: "last" for the last epoch; "train", "val" or "test" for the best on that split.
      selected_by: The metric that decides which is best, one of METRICS.
      curve: The split that is evaluated between epochs; see curve_split.
    """

    selected_on: str
    selected_by: str
    curve: str

    @property
    def is_last(self) -> bool:
        """Whether the last epoch is reported, regardless of its metrics."""
        return self.selected_on == "last"

    @property
    def is_on_curve(self) -> bool:
        """Whether the evaluations between epochs select the reported one."""
        return self.selected_on == self.curve

    def score(self, row: Row) -> float | None:
        """Returns the score of an epoch (higher is better), or None if it was not evaluated.

        Args:
          row: The epoch's row of metrics.csv.
        """
        split = "train" if self.selected_on == "train" else self.curve
        value = row.get(f"{split}_{self.selected_by}")
        return -value if value is not None and self.selected_by == "loss" else value

    def is_best(self, row: Row, earlier: Sequence[Row]) -> bool:
        """Returns whether an epoch is better than every earlier one; False if not evaluated."""
        score = self.score(row)
        others = (self.score(other) for other in earlier)
        return score is not None and all(other is None or score > other for other in others)

    def best(self, rows: Sequence[Row]) -> Row | None:
        """Returns the row of the best epoch, the first one if several are equally good.

        Args:
          rows: The rows of all epochs so far.

        Returns:
          The row, or None if the last epoch is reported or no epoch has been evaluated yet.
        """
        evaluated = [row for row in rows if self.score(row) is not None]
        return None if self.is_last else max(evaluated, key=self.score, default=None)


def of_config(config: Any) -> Selection:
    """Returns the rule of a run.

    Args:
      config: The run's config, a ConfigDict.
    """
    curve = curve_split(config.data.val_fraction)
    return Selection(config.selected_on, config.selected_by, curve)
