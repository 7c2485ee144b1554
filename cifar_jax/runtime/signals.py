"""Handles SIGTERM, SIGINT and SIGHUP as requests to save and exit."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

BEFORE_TRAINING = b"stopped before training began; nothing to save\n"


class Preempted(Exception):
    """A command was asked to stop, and has saved what it can.

    Attributes:
      exit_code: 128 + signal, as shells report it.
    """

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


def handled() -> list[int]:
    """Returns those of SIGTERM, SIGINT and SIGHUP that the process does not ignore.

    A process can inherit ignored signals: `nohup` ignores SIGHUP, and a shell without job control
    ignores SIGINT in commands that it runs with `&`.
    """
    # SIGINT comes first: until it is handled, Python answers it with a traceback.
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [s for s in signals if signal.getsignal(s) != signal.SIG_IGN]


def exit_on_signals(line: bytes = BEFORE_TRAINING) -> None:
    """Makes SIGTERM, SIGINT and SIGHUP end the process at once, with a message and 128 + signal.

    For use before training begins. An exception would have to propagate through the compiler, but
    some of its callbacks drop exceptions, and its threads can crash the interpreter at exit.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # after SIGHUP, the terminal is gone
            os.write(2, line)
        os._exit(128 + signum)

    for signum in handled():
        signal.signal(signum, leave)


class StopRequest:
    """A request to stop, made by a signal or by a deadline.

    Attributes:
      signum: The signal received, SIGTERM once the deadline has passed, or None.
      received: The signal received, or None.
    """

    def __init__(self, deadline: float):
        self._deadline, self._signum = deadline, None
        self.received: int | None = None

    @property
    def signum(self) -> int | None:
        """The signal received, or None; see the class."""
        if self._signum is None and time.monotonic() >= self._deadline:
            self._signum = signal.SIGTERM
        return self._signum

    def note(self, signum: int) -> None:
        """Records a signal."""
        self._signum = self.received = signum


@contextlib.contextmanager
def catch_signals(deadline: float = math.inf) -> Iterator[StopRequest]:
    """Records the first SIGTERM, SIGINT or SIGHUP; a second SIGTERM or SIGINT exits immediately.

    Args:
      deadline: Value of time.monotonic() at which to request a stop without a signal.
    """
    request = StopRequest(deadline)
    signals = handled()

    def note(signum: int, frame: FrameType | None) -> None:
        request.note(signum)
        for s in signals:
            # A closing session sends SIGHUP along with SIGTERM, or twice, by the kernel and by the
            # shell. It must not end the process even for a moment.
            signal.signal(s, signal.SIG_IGN if s == signal.SIGHUP else signal.SIG_DFL)

    note.request = request
    previous = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        for s in signals:
            previous[s] = signal.signal(s, note)
    try:
        yield request
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
            # The body may have ended before it acted on the signal; an outer one still has to.
            outer = getattr(handler, "request", None)
            if outer is not None and request.received is not None:
                outer.note(request.received)
