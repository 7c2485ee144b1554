"""Decisions between epochs: Keras' ReduceLROnPlateau and EarlyStopping, as small state machines.

They are told each evaluated epoch's metrics on the host and say what follows. What they remember
is a dict of JSON values, so that a checkpoint can hold it and a resumed run decides alike.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from cifar_jax.errors import UserError, unknown
from cifar_jax.selection import METRICS

# Of the split that is evaluated along the way, or, with "train_", of the training images.
MONITORS = (*METRICS, *(f"train_{name}" for name in METRICS))


class Decision(NamedTuple):
    """What follows from an epoch.

    Attributes:
      rate_factor: of the learning rate from now on; 1 for no change.
      stops: whether training ends here.
      events: what to tell people, a line for each decision.
    """

    rate_factor: float = 1.0
    stops: bool = False
    events: tuple[str, ...] = ()


class _Best:
    """The best value of a metric so far, and how many evaluations ago that was."""

    def __init__(self, name: str, monitor: str, patience: int, min_delta: float):
        if monitor not in MONITORS:
            raise unknown(f"{name}.monitor", monitor, MONITORS)
        if not isinstance(patience, int) or patience < 1:
            raise UserError(f"{name}.patience needs a whole number above 0, not {patience!r}")
        if not min_delta >= 0:
            raise UserError(f"{name}.min_delta needs 0 or more, not {min_delta}")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self._sign = -1.0 if monitor.endswith("loss") else 1.0
        self.best, self.wait = -math.inf, 0

    def improves(self, value: float) -> bool:
        """Notes the value where it is better than the best by more than min_delta."""
        value *= self._sign
        if not value > self.best + self.min_delta:
            return False
        self.best, self.wait = value, 0
        return True

    def _for_how_long(self) -> str:
        return f"{self.monitor} in {self.wait} evaluation{'s' if self.wait > 1 else ''}"


class Plateau(_Best):
    """Cuts the learning rate where a metric has stopped improving (Keras' ReduceLROnPlateau).

    Args:
      monitor: of MONITORS; a loss is to fall, an accuracy to rise.
      patience: evaluations without improvement after which the rate is cut.
      factor: of the rate, in (0, 1).
      cooldown: evaluations after a cut that do not count.
      min_delta: what an improvement has to exceed.
      min_learning_rate: the rate is cut no further.

    Raises:
      UserError: for a value out of its range.
    """

    def __init__(
        self,
        monitor: str,
        patience: int,
        *,
        factor: float = 0.1,
        cooldown: int = 0,
        min_delta: float = 1e-4,
        min_learning_rate: float = 0.0,
    ):
        super().__init__("plateau", monitor, patience, min_delta)
        if not 0 < factor < 1:
            raise UserError(f"plateau.factor needs a value between 0 and 1, not {factor}")
        if cooldown < 0 or min_learning_rate < 0:
            raise UserError(
                "plateau.cooldown and plateau.min_learning_rate need 0 or more, not "
                f"{cooldown} and {min_learning_rate}"
            )
        self.factor, self.cooldown = factor, cooldown
        self.min_learning_rate = min_learning_rate
        self.cooling = 0

    def decide(self, value: float, learning_rate: float) -> Decision:
        """Takes an epoch's value and the rate that it ended with."""
        if self.cooling:
            self.cooling -= 1
            self.wait = 0
        if self.improves(value) or self.cooling:
            return Decision()
        self.wait += 1
        # The rate is a float32: at the floor it may stand a rounding error above it.
        at_floor = learning_rate <= self.min_learning_rate * (1 + 1e-6)
        if self.wait < self.patience or at_floor or not learning_rate:
            return Decision()
        rate = max(learning_rate * self.factor, self.min_learning_rate)
        event = f"rate cut to {rate:.3g}: no better {self._for_how_long()}"
        self.wait, self.cooling = 0, self.cooldown
        return Decision(rate_factor=rate / learning_rate, events=(event,))

    def memory(self) -> dict[str, Any]:
        """Returns what it remembers, as JSON values."""
        return {"best": _json(self.best), "wait": self.wait, "cooling": self.cooling}

    def recall(self, memory: dict[str, Any]) -> None:
        """Takes back what `memory` returned."""
        self.best, self.wait = _number(memory["best"]), memory["wait"]
        self.cooling = memory["cooling"]


class EarlyStopping(_Best):
    """Ends training where a metric has stopped improving (Keras' EarlyStopping).

    Which epoch is reported is the config's selected_on and selected_by.

    Args:
      monitor: of MONITORS.
      patience: evaluations without improvement after which training ends.
      min_delta: what an improvement has to exceed.

    Raises:
      UserError: for a value out of its range.
    """

    def __init__(self, monitor: str, patience: int, *, min_delta: float = 0.0):
        super().__init__("early_stopping", monitor, patience, min_delta)
        self.has_stopped = False

    def decide(self, value: float) -> Decision:
        """Takes an epoch's value."""
        if self.improves(value):
            return Decision()
        self.wait += 1
        if self.wait < self.patience:
            return Decision()
        self.has_stopped = True
        return Decision(stops=True, events=(f"stopped: no better {self._for_how_long()}",))

    def memory(self) -> dict[str, Any]:
        """Returns what it remembers, as JSON values."""
        return {"best": _json(self.best), "wait": self.wait, "has_stopped": self.has_stopped}

    def recall(self, memory: dict[str, Any]) -> None:
        """Takes back what `memory` returned."""
        self.best, self.wait = _number(memory["best"]), memory["wait"]
        self.has_stopped = memory["has_stopped"]


class Callbacks:
    """Those of one run; either may be missing."""

    def __init__(self, plateau: Plateau | None = None, early_stopping: EarlyStopping | None = None):
        self._plateau, self._early_stopping = plateau, early_stopping

    @property
    def has_stopped(self) -> bool:
        """Whether they have ended the training."""
        return self._early_stopping is not None and self._early_stopping.has_stopped

    def after_epoch(self, values: Mapping[str, float | None], learning_rate: float) -> Decision:
        """Asks each for its decision.

        Args:
          values: of each of MONITORS; None where the epoch was not evaluated, which does not count.
          learning_rate: that the epoch ended with.
        """
        plateau, stopping = Decision(), Decision()
        if self._plateau and values[self._plateau.monitor] is not None:
            plateau = self._plateau.decide(values[self._plateau.monitor], learning_rate)
        if self._early_stopping and values[self._early_stopping.monitor] is not None:
            stopping = self._early_stopping.decide(values[self._early_stopping.monitor])
        return Decision(plateau.rate_factor, stopping.stops, plateau.events + stopping.events)

    def memory(self) -> dict[str, Any]:
        """Returns what they remember, as JSON values."""
        return {
            name: callback and callback.memory()
            for name, callback in (
                ("plateau", self._plateau),
                ("early_stopping", self._early_stopping),
            )
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes back what `memory` returned."""
        if self._plateau:
            self._plateau.recall(memory["plateau"])
        if self._early_stopping:
            self._early_stopping.recall(memory["early_stopping"])


def _json(value: float) -> float | None:
    return None if math.isinf(value) else value


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
