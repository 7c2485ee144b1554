"""The result of a search: its best trial, and the command that trains the winner."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from cifar_jax.config import choose_model, command_line, flatten, load


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Returns the complete trial with the highest value (the first one in a tie), or None."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return max(complete, key=lambda t: t.value, default=None)


def state_name(state: TrialState, error: str) -> str:
    """Returns "complete", "pruned", "diverged", "failed" or "running"."""
    if state == TrialState.PRUNED and error:
        return "diverged"
    return {TrialState.FAIL: "failed"}.get(state, state.name.lower())


def format_value(value: float, metric: str) -> str:
    """Formats the value of a trial.

    Args:
      value: The metric, negated if it is the loss.
      metric: The value of config.selected_by.
    """
    return f"{-value:.4f}" if metric == "loss" else f"{100 * value:.2f}%"


def format_parameter(value: Any) -> str:
    """Formats the value of a parameter, floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value) or "''"


def command(path: str, config: ConfigDict, winner: ConfigDict, workdir: Path) -> str:
    """Returns the command that trains the winner, on all images where the config allows it.

    Args:
      path: The config file.
      config: The config as the user gave it, which says how the winner trains.
      winner: The same config with the values of the best trial.
      workdir: The workdir to train in.
    """
    winner = winner.copy_and_resolve_references()
    # Callbacks that monitor the validation split need it.
    needs_split = winner.plateau.patience or winner.early_stopping.patience
    if config.data.val_fraction and not needs_split:
        with winner.unlocked():
            winner.data.val_fraction, winner.selected_on = 0.0, "last"
    before = load(path)
    own = before.model.name
    choose_model(before, winner.model.name)
    if winner.model.name != own:
        before.model.name = ""
    off = tuple(f"{g}." for g, switch in command_line.SWITCHES.items() if not winner[g][switch])
    switches = [f"{group}.{switch}" for group, switch in command_line.SWITCHES.items()]
    old, new = flatten(before), flatten(winner)
    changed = [
        f"--config.{name}={_flag(new[name])}"
        for name in sorted(new, key=lambda name: name != "model.name")
        if new[name] != old[name]
        and not name.startswith("search.")
        and (name in switches or not name.startswith(off))
    ]
    words = ["python", "-m", "cifar_jax.main", "--config", path, "--workdir", str(workdir)]
    return shlex.join([*words, *changed])


def _flag(value: Any) -> str:
    if isinstance(value, tuple | list):
        return repr(tuple(value)).replace(" ", "")
    return str(value)
