"""Lets a command finish its work even if its output cannot be written.

A training run that has computed for hours must not end because its terminal was closed or its log
filled the disk. So the first failure to write is remembered, further output is dropped, and the
command reports the failure when it ends.
"""

import io
import os
import sys


class Output(io.TextIOWrapper):
    """A text stream for standard output or error whose `write` and `flush` do not raise OSError.

    Characters that the stream's encoding lacks are written as escapes, such as those of a file name
    that is not UTF-8.

    Attributes:
      error: The first failure to write, or None.
    """

    def __init__(self, stream: io.TextIOWrapper):
        """Takes over the buffer of `stream`, which must not be used afterwards."""
        settings = {
            "encoding": stream.encoding,
            "errors": "backslashreplace",
            "line_buffering": stream.line_buffering,
            "write_through": stream.write_through,
        }
        stream.flush()
        self.error: OSError | None = None
        super().__init__(stream.detach(), **settings)

    def write(self, text: str) -> int:
        """Writes text, or drops it after a failure."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream, or drops what it holds after a failure."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Sends everything that follows, and what is still buffered, to /dev/null."""
        self.error = self.error or error
        _open_null(self.fileno())


def install() -> None:
    """Replaces standard output and error with `Output`, unless the program has replaced them.

    Closed streams (`>&-`) are opened on /dev/null. Otherwise the next file that the command opens
    would get a stream's file descriptor, and libraries would print into that file.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _open_null(number)
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, Output(stream))


def exit_code(code: int | str | None) -> int | str | None:
    """Returns the exit code of a command: `code`, unless its output could not be written.

    Like other programs, a command whose reader has gone ends silently with 141 (128 + SIGPIPE).
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None or code:
        return code
    if isinstance(error, BrokenPipeError):
        return 141
    print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return 1


def _open_null(number: int) -> None:
    """Opens /dev/null as the given file descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
