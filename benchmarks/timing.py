"""Clocks for loops of steps: how many steps make a round, and several loops in turns."""

import time
from collections.abc import Callable, Sequence

# Takes so many steps and waits for them.
Run = Callable[[int], None]

# Shorter rounds would measure how a call begins and ends: on an H100 a call takes 2.5 ms (resnet18)
# or 0.9 ms (cnn3) beyond its steps (benchmarks/results/checks/gpu/first_contact.jsonl).
_LEAST_SECONDS = 0.2


def timed(run: Run, num_steps: int) -> float:
    """Returns the seconds that so many steps take."""
    start = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - start


def calibrate(run: Run, seconds: float) -> int:
    """Returns how many steps take about so many seconds, at least one."""
    num_steps = 1
    while (taken := timed(run, num_steps)) < seconds / 4:
        num_steps *= 2
    return max(1, round(num_steps * seconds / taken))


def take_turns(
    runs: Sequence[Run], seconds: float, most: int = 100, least: int = 3
) -> tuple[list[list[float]], int]:
    """Times loops in turns, in rounds of as many steps for each.

    Args:
      runs: of which the first sets the number of steps; each has run before.
      seconds: of the first one's rounds together, about.
      most: rounds at most.
      least: rounds at least.

    Returns:
      The seconds per step of each loop in every round, and the steps of a round.
    """
    num_steps = calibrate(runs[0], max(seconds / most, _LEAST_SECONDS))
    first = timed(runs[0], num_steps)
    num_rounds = min(max(round(seconds / first), least), most)
    found = [[] for _ in runs]
    for _ in range(num_rounds):
        for times, run in zip(found, runs, strict=True):
            times.append(timed(run, num_steps) / num_steps)
    return found, num_steps
