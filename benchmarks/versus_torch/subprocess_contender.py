"""Runs one side of a comparison in its own process."""

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.harness import TimedLoop


class SubprocessContender:
    """A contender in its own process, which sleeps while other contenders run.

    Attributes:
      processor_seconds: The processor time that the process has used so far.
      peak_bytes: The peak resident memory of the process.
    """

    def __init__(
        self, make: Callable[..., TimedLoop], *args: Any, num_threads: int, huge_pages: bool = False
    ):
        """Starts the process and creates the contender in it.

        Args:
          make: A module-level function that returns the contender.
          *args: Arguments of `make`.
          num_threads: The number of threads that PyTorch uses.
          huge_pages: Whether the process requests huge pages for large arrays.

        Raises:
          RuntimeError: If `make` fails.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(end, num_threads, make, *args), daemon=True
        )
        environ = {
            "GLIBC_TUNABLES": f"glibc.malloc.hugetlb={int(huge_pages)}",
            # Processes that compile in parallel would outlive this one.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        with mock.patch.dict(os.environ, environ):
            self._process.start()
        end.close()
        try:
            self._wait()
        except RuntimeError:
            self.close()
            raise

    def __call__(self, num_steps: int) -> None:
        """Runs `num_steps` steps in the process.

        Raises:
          RuntimeError: If they fail.
        """
        self._pipe.send(num_steps)
        self._wait()

    def _wait(self) -> None:
        try:
            error, self.processor_seconds, self.peak_bytes = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the contender's process has exited") from None
        if error:
            raise RuntimeError(error)

    def close(self) -> None:
        """Terminates the process."""
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, num_threads: int, make: Callable[..., TimedLoop], *args: Any) -> None:
    """Creates a contender and runs the requested numbers of steps until the pipe is closed."""
    torch.set_num_threads(num_threads)

    def report(error: str = "") -> None:
        pipe.send((error, time.process_time(), peak_bytes()))

    try:
        run = make(*args)
        report()
        while True:
            run(pipe.recv())
            report()
    except EOFError:  # the parent has closed its end
        return
    except Exception as error:
        traceback.print_exc()
        report(f"{type(error).__name__}: {error}")


def peak_bytes() -> int:
    """Returns the peak resident memory of this process since its start or `reset_peak_bytes`.

    getrusage is of no use here, because a child process inherits its parent's peak through exec.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def reset_peak_bytes() -> None:
    """Resets `peak_bytes`; does nothing if the system does not permit it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
