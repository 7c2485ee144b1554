"""Measures how much of the processor's time other processes took during a measurement."""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path


def background_load(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Returns the share of the cores' time that other processes took between two readings.

    Args:
      before: A reading by `processor_seconds`.
      after: A later reading.

    Returns:
      A fraction, or None if the system provides no readings.
    """
    if not before:
        return None
    used, busy, idle = (b - a for a, b in zip(before, after, strict=True))
    # If the system's clock has not ticked between the readings, the load is taken as zero.
    return max(0.0, busy - used) / (busy + idle) if busy + idle > 0 else 0.0


def processor_seconds() -> tuple[float, ...]:
    """Reads the processor time used so far.

    Returns:
      The seconds used by this process and its terminated children, and the busy and the idle
      seconds of the cores that this process may use. Empty on systems other than Linux.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:  # not Linux
        return ()
    allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = idle = 0
    for name, *ticks in (line.split() for line in lines):
        if name in allowed:
            user, nice, system, idle_ticks, iowait, irq, softirq, steal, *_ = map(int, ticks)
            busy += user + nice + system + irq + softirq + steal
            idle += idle_ticks + iowait
    tick = 1 / os.sysconf("SC_CLK_TCK")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = time.process_time() + children.ru_utime + children.ru_stime
    return used, busy * tick, idle * tick
