"""Measures the time from the start of a command to the end of its first call to the device."""

import os
import time
from pathlib import Path


class Startup:
    """A stopwatch for the consecutive parts of a start.

    Attributes:
      seconds: {part: seconds} of the parts completed so far, and "total" after the last one.
    """

    def __init__(self, began: float | None = None):
        """Starts at `began`, a value of time.monotonic(), or now."""
        self._began = self._last = time.monotonic() if began is None else began
        self.seconds: dict[str, float] = {}

    def mark(self, part: str, **within: float) -> None:
        """Marks the end of a part; does nothing after `finish`.

        Args:
          part: Name of the part.
          **within: Seconds of sections of the part, by name. They are listed separately, and the
            part's time excludes them.
        """
        if "total" in self.seconds:
            return
        now = time.monotonic()
        self.seconds |= within
        self.seconds[part] = now - self._last - sum(within.values())
        self._last = now

    def finish(self, part: str) -> None:
        """Marks the end of the last part; later calls do nothing."""
        self.mark(part)
        self.seconds.setdefault("total", self._last - self._began)


def process_began() -> float:
    """Returns the time.monotonic() at which this process began, or the current time if unknown.

    A process keeps its start time when it executes another program, and Linux does not record when
    that happens. The time thus includes the restart in huge_pages.py, and also what a shell did
    before it became Python, as with `bash -c "a && python ..."`.
    """
    now = time.monotonic()
    try:
        # The name, in parentheses, may contain spaces. Field 22 is in ticks since boot.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return now
