"""SIGTERM and SIGINT as a request to save and leave."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Preempted(Exception):
    """The run was asked to stop and has saved; `exit_code` is the shell's 128 + signal."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


def leave_at_once() -> None:
    """Lets SIGTERM and SIGINT end the process there and then, with a line and the exit code.

    For the time before training: an exception would have to find its way out of the compiler,
    which loses it in some callbacks, and whose threads can crash the interpreter's own end.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        os.write(2, b"stopped before training began; nothing to save\n")
        os._exit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)


class StopRequest:
    """`signum` is the signal that came in, None until then."""

    signum: int | None = None


@contextlib.contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Within it the first SIGTERM or SIGINT is noted only; a second one ends the process."""
    request = StopRequest()
    signals = (signal.SIGTERM, signal.SIGINT)

    def note(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
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
