"""Whether the processor cores of a measurement did something else meanwhile."""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path


def used_elsewhere(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Returns the share of the cores' time between two readings that others took."""
    if not before:
        return None
    own, busy, idle = (b - a for a, b in zip(before, after, strict=True))
    # Between two ticks of the system's clock nothing is known to have run.
    return max(0.0, busy - own) / (busy + idle) if busy + idle > 0 else 0.0


def processor_seconds() -> tuple[float, ...]:
    """Reads the seconds so far: this process's, and busy and idle ones of the cores it may use.

    The process's are also those of its children that have ended.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:  # not Linux
        return ()
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = idle = 0
    for name, *ticks in (line.split() for line in lines):
        if name in mine:
            user, nice, system, idling, iowait, irq, softirq, steal, *_ = map(int, ticks)
            busy += user + nice + system + irq + softirq + steal
            idle += idling + iowait
    tick = 1 / os.sysconf("SC_CLK_TCK")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + children.ru_utime + children.ru_stime
    return own, busy * tick, idle * tick
