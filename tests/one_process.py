"""Runs cifar_jax.main without drawing figures, for tests/test_several_processes.py.

With the environment variable STOP_AT_STEP, process 1 stops (SIGSTOP) once it has taken that step,
so that the test can kill it in the middle of a run.
"""

import os
import signal
import sys

from cifar_jax import clock
from cifar_jax import main as command
from cifar_jax.runtime import entry


def stop_at(step):
    wait = clock.Clock.wait

    def stop_before_waiting(self, call):
        if call.first_step + call.num_steps == step:
            os.kill(os.getpid(), signal.SIGSTOP)
        return wait(self, call)

    clock.Clock.wait = stop_before_waiting


if __name__ == "__main__":
    sys.modules["torch"] = None  # tensorboardX would import it, which takes two seconds
    command._draw = lambda workdir: None
    if "STOP_AT_STEP" in os.environ and "--process_id=1" in sys.argv:
        stop_at(int(os.environ["STOP_AT_STEP"]))
    entry.run(command.main)
