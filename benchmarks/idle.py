"""Whether a machine did something else while it was measured."""

import os
import time
from collections.abc import Sequence
from pathlib import Path


def used_elsewhere(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Returns the share of the machine's processor time between two readings that others took."""
    if not before:
        return None
    own, busy, idle = (b - a for a, b in zip(before, after, strict=True))
    # Between two ticks of the system's clock nothing is known to have run.
    return max(0.0, busy - own) / (busy + idle) if busy + idle > 0 else 0.0


def processor_seconds() -> tuple[float, ...]:
    """Reads the processor's seconds so far: this process's, all that were busy, all idle ones."""
    try:
        first_line, _ = Path("/proc/stat").read_text().split("\n", 1)
    except OSError:  # not Linux
        return ()
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = (
        int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in first_line.split()[1:]
    )
    return time.process_time(), user + nice + system + irq + softirq + steal, idle + iowait
