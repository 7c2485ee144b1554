"""A contender for tests, in a module whose import takes no time in its process."""

import time


def spin(seconds):
    """Returns a contender that uses `seconds` of processor time per step and fails at 13 steps."""

    def run(num_steps):
        if num_steps == 13:
            raise ValueError("bad luck")
        start = time.process_time()
        while time.process_time() < start + num_steps * seconds:
            pass

    if seconds < 0:
        raise ValueError("no such contender")
    return run
