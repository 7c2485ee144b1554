"""SIGTERM and SIGINT as a request to save and leave."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType


class Preempted(Exception):
    """The run was asked to stop and has saved; `exit_code` is the shell's 128 + signal."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


def leave_at_once(line: bytes = b"stopped before training began; nothing to save\n") -> None:
    """Lets SIGTERM and SIGINT end the process there and then, with a line and the exit code.

    For the time before training: an exception would have to find its way out of the compiler,
    which loses it in some callbacks, and whose threads can crash the interpreter's own end.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        os.write(2, line)
        os._exit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)


class StopRequest:
    """`signum` is the signal that came in, None until then; SIGTERM once the deadline is over."""

    def __init__(self, deadline: float):
        self._deadline, self._signum = deadline, None

    @property
    def signum(self) -> int | None:
        """See the class."""
        if self._signum is None and time.monotonic() >= self._deadline:
            self._signum = signal.SIGTERM
        return self._signum

    def note(self, signum: int) -> None:
        """Takes in a signal."""
        self._signum = signum


@contextlib.contextmanager
def catch_signals(deadline: float = math.inf) -> Iterator[StopRequest]:
    """Within it the first SIGTERM or SIGINT is noted only; a second one ends the process.

    Args:
      deadline: by time.monotonic(), when the request comes by itself.
    """
    request = StopRequest(deadline)
    signals = (signal.SIGTERM, signal.SIGINT)

    def note(signum: int, frame: FrameType | None) -> None:
        request.note(signum)
        for s in signals:
            signal.signal(s, signal.SIG_DFL)

    previous = {}
    try:
        for s in signals:
            previous[s] = signal.signal(s, note)
    except ValueError:  # not the main thread: leave the signals to whoever has it
        previous = {}
    try:
        yield request
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
