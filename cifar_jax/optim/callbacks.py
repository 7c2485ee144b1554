"""Makes decisions between epochs: Keras's ReduceLROnPlateau and EarlyStopping as state machines.

They receive the metrics of each evaluated epoch on the host and return a `Decision`. Their state is
a dict of JSON values, so that checkpoints can store it and a resumed run makes the same decisions.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from cifar_jax.errors import UserError, unknown
from cifar_jax.selection import METRICS

# The metrics that can be monitored, on the split that is evaluated during training or, with the
# prefix "train_", on the training images.
MONITORS = (*METRICS, *(f"train_{name}" for name in METRICS))


class Decision(NamedTuple):
    """What the callbacks decide after an epoch.

    Attributes:
      learning_rate_factor: Factor applied to the learning rate from the next epoch on.
      stops: Whether training ends.
      events: Messages for the user, one line each.
    """

    learning_rate_factor: float = 1.0
    stops: bool = False
    events: tuple[str, ...] = ()


class _Best:
    """The best value of a metric so far and the number of evaluations since then."""

    def __init__(self, name: str, monitor: str, patience: int, min_delta: float):
        if monitor not in MONITORS:
            raise unknown(f"{name}.monitor", monitor, MONITORS)
        if not isinstance(patience, int) or patience < 1:
            raise UserError(
                f"{name}.patience must be a number of evaluations, 1 or more, or 0 to disable the "
                f"callback, got {patience!r}"
            )
        if not 0 <= min_delta < math.inf:
            raise UserError(f"{name}.min_delta must be at least 0, got {min_delta}")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self._sign = -1.0 if monitor.endswith("loss") else 1.0
        self.best, self.wait = -math.inf, 0

    def improves(self, value: float) -> bool:
        """Returns whether a value improves on the best by more than min_delta; records it if so."""
        value *= self._sign
        if not value > self.best + self.min_delta:
            return False
        self.best, self.wait = value, 0
        return True

    def _describe_wait(self) -> str:
        return f"{self.monitor} in {self.wait} evaluation{'s' if self.wait > 1 else ''}"


class Plateau(_Best):
    """Reduces the learning rate when a metric has stopped improving (Keras's ReduceLROnPlateau).

    Args:
      monitor: One of MONITORS; losses are minimized, accuracies are maximized.
      patience: Number of evaluations without improvement before a reduction.
      factor: Factor of the learning rate, in (0, 1).
      cooldown: Length of the cooldown after a reduction, in evaluations. As in Keras, only the
        first cooldown - 1 of them are excluded from the patience.
      min_delta: An improvement must exceed this to count.
      min_learning_rate: Lower bound of the learning rate.

    Raises:
      UserError: If the monitor is unknown or a value is out of range.
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
            raise UserError(f"plateau.factor must be in (0, 1), got {factor}")
        for field, value in (("cooldown", cooldown), ("min_learning_rate", min_learning_rate)):
            if not 0 <= value < math.inf:
                raise UserError(f"plateau.{field} must be at least 0, got {value}")
        self.factor, self.cooldown = factor, cooldown
        self.min_learning_rate = min_learning_rate
        self.cooling = 0

    def decide(self, value: float, learning_rate: float) -> Decision:
        """Returns the decision after an epoch.

        Args:
          value: Value of the monitored metric.
          learning_rate: Learning rate at the end of the epoch.
        """
        if self.cooling:
            self.cooling -= 1
            self.wait = 0
        if self.improves(value) or self.cooling:
            return Decision()
        self.wait += 1
        # The learning rate is a float32 and may exceed the lower bound by a rounding error.
        is_min = learning_rate <= self.min_learning_rate * (1 + 1e-6)
        if self.wait < self.patience or is_min or not learning_rate:
            return Decision()
        reduced = max(learning_rate * self.factor, self.min_learning_rate)
        event = f"learning rate cut to {reduced:.3g}: no better {self._describe_wait()}"
        self.wait, self.cooling = 0, self.cooldown
        return Decision(learning_rate_factor=reduced / learning_rate, events=(event,))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {"best": _json(self.best), "wait": self.wait, "cooling": self.cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.best, self.wait = _number(state["best"]), state["wait"]
        self.cooling = state["cooling"]


class EarlyStopping(_Best):
    """Ends training when a metric has stopped improving (Keras's EarlyStopping).

    The config fields selected_on and selected_by determine which epoch is reported.

    Args:
      monitor: One of MONITORS.
      patience: Number of evaluations without improvement before training ends.
      min_delta: An improvement must exceed this to count.

    Raises:
      UserError: If the monitor is unknown or a value is out of range.
    """

    def __init__(self, monitor: str, patience: int, *, min_delta: float = 0.0):
        super().__init__("early_stopping", monitor, patience, min_delta)
        self.has_stopped = False

    def decide(self, value: float) -> Decision:
        """Returns the decision after an epoch with this value of the monitored metric."""
        if self.improves(value):
            return Decision()
        self.wait += 1
        if self.wait < self.patience:
            return Decision()
        self.has_stopped = True
        return Decision(stops=True, events=(f"stopped: no better {self._describe_wait()}",))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {"best": _json(self.best), "wait": self.wait, "has_stopped": self.has_stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.best, self.wait = _number(state["best"]), state["wait"]
        self.has_stopped = state["has_stopped"]


class Callbacks:
    """The callbacks of a run; each of them is optional."""

    def __init__(self, plateau: Plateau | None = None, early_stopping: EarlyStopping | None = None):
        self._plateau, self._early_stopping = plateau, early_stopping

    @property
    def has_stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return self._early_stopping is not None and self._early_stopping.has_stopped

    def after_epoch(self, values: Mapping[str, float | None], learning_rate: float) -> Decision:
        """Returns the combined decision after an epoch.

        Args:
          values: {monitor: value}. A value is None if the epoch was not evaluated; such an epoch is
            not counted.
          learning_rate: Learning rate at the end of the epoch.
        """
        plateau, stopping = Decision(), Decision()
        if self._plateau and values[self._plateau.monitor] is not None:
            plateau = self._plateau.decide(values[self._plateau.monitor], learning_rate)
        if self._early_stopping and values[self._early_stopping.monitor] is not None:
            stopping = self._early_stopping.decide(values[self._early_stopping.monitor])
        return Decision(
            plateau.learning_rate_factor, stopping.stops, plateau.events + stopping.events
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the callbacks as JSON values."""
        return {
            name: callback and callback.state_dict()
            for name, callback in (
                ("plateau", self._plateau),
                ("early_stopping", self._early_stopping),
            )
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        if self._plateau:
            self._plateau.load_state_dict(state["plateau"])
        if self._early_stopping:
            self._early_stopping.load_state_dict(state["early_stopping"])


def _json(value: float) -> float | None:
    return None if math.isinf(value) else value


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
