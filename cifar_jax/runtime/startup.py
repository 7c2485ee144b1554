"""From the command to the numbers of the first call, of one step by default: what took how long."""

import os
import time
from pathlib import Path


class Startup:
    """A stopwatch of parts that follow one another.

    Attributes:
      seconds: {part: seconds} of those over so far; with "total" once the last is.
    """

    def __init__(self, began: float | None = None):
        """Starts at `began` by time.monotonic(), or now."""
        self._began = self._last = time.monotonic() if began is None else began
        self.seconds: dict[str, float] = {}

    def over(self, part: str, **within: float) -> None:
        """Notes that a part is over; does nothing once the start is.

        Args:
          part: its name.
          within: seconds of the part that go by names of their own.
        """
        if "total" in self.seconds:
            return
        now = time.monotonic()
        self.seconds |= within
        self.seconds[part] = now - self._last - sum(within.values())
        self._last = now

    def finish(self, part: str) -> None:
        """Notes that the last part is over; does nothing at a second call."""
        self.over(part)
        self.seconds.setdefault("total", self._last - self._began)


def process_began() -> float:
    """Returns when this process began, by time.monotonic(); now where the system does not say."""
    now = time.monotonic()
    try:
        # The name, in brackets, may hold spaces; field 22 counts from the machine's start.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return now
