"""One invocation of the suite: its directories, its deadline, and the benchmarks that it starts."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_suite.collect import read_records
from benchmarks.harness import ROOT
from cifar_jax.runtime.signals import Preempted, catch_signals

# A benchmark is started only if this much time is left.
MIN_SECONDS = 20


class Suite(NamedTuple):
    """The settings and state of one invocation of the command.

    Attributes:
      out: The directory of the results.
      work: The directory of temporary files.
      data_dir: The directory of the data sets.
      deadline: When to stop, a value of time.monotonic().
      small: Whether this is a trial with tiny settings.
      seeds: The number of runs of each experiment.
      failed: The modules of the benchmarks that failed, in order.
    """

    out: Path
    work: Path
    data_dir: Path
    deadline: float
    small: bool
    seeds: int
    failed: list[str]

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()

    def call(
        self,
        module: str,
        *arguments: str,
        save: Callable[[], None] = lambda: None,
        save_output: Path | None = None,
    ) -> int | None:
        """Runs a benchmark in its own process and kills it at the deadline.

        Args:
          module: The module of the benchmark.
          *arguments: The arguments of the benchmark.
          save: Called every minute while the benchmark runs, and at the end.
          save_output: The file that receives the benchmark's standard output, if any.

        Returns:
          The exit code, or None if the benchmark ran out of time.

        Raises:
          Preempted: After SIGTERM, SIGINT or SIGHUP, once the benchmark has ended.
        """
        command = [sys.executable, "-m", module, *arguments]
        print(f"$ {' '.join(command[1:])}", flush=True)
        environ = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        start = saved_at = time.monotonic()
        code = None
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(catch_signals())
            stdout = stack.enter_context(save_output.open("w")) if save_output else None
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=stdout)
            stack.enter_context(process)
            while code is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(1)
                if stop.signum is not None:
                    process.terminate()
                    process.wait()
                    save()
                    raise Preempted(stop.signum, "stopped: run the same command to continue")
                if self.seconds_left <= 0:
                    process.kill()
                    break
                if time.monotonic() - saved_at > 60:
                    save()
                    saved_at = time.monotonic()
        save()
        if code:
            self.failed.append(module)
        status = "out of time" if code is None else f"exit code {code}"
        print(f"  {time.monotonic() - start:.0f} s, {status}", flush=True)
        return code

    def records(self, name: str) -> list[dict[str, Any]]:
        """Returns the records in `out`/<name>.jsonl."""
        return read_records(self.out / f"{name}.jsonl")
