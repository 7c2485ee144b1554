"""A run that is killed and restarted gives the same results as an uninterrupted one.

`python -m pytest tests/test_kill.py --kills 10 -s` kills a run ten times, and prints when.
"""

import csv
import os
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny
from test_train import params_of

NUM_EPOCHS = 8


def start(workdir):
    return subprocess.Popen(
        [sys.executable, "-u", "tests/tiny.py", str(workdir), str(NUM_EPOCHS)],
        cwd=tiny.ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(tiny.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()  # a run that hangs must not outlive its test
    assert process.returncode == 0, output
    return output


def latest_step(workdir):
    names = [p.name for p in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def curves(workdir):
    with (workdir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.mark.scalable
def test_a_run_killed_at_random_moments_equals_an_uninterrupted_one(tmp_path, pytestconfig):
    num_kills = pytestconfig.getoption("kills")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(start(straight))
    rng = random.Random(0)
    half_written = 0
    for kill in range(num_kills):
        process = start(killed)
        # Wait for some more checkpoints and then for a moment, so that the kill may hit the writing
        # of the next one.
        goal = latest_step(killed) + rng.randint(1, 4 * NUM_EPOCHS // num_kills - 1)
        while latest_step(killed) < goal:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        process.wait()
        names = sorted(p.name for p in (killed / "checkpoints").glob("*"))
        half_written += any("tmp" in name for name in names)
        print(f"kill {kill + 1}: checkpoints {' '.join(names)}")
    output = finish(start(killed))
    print(next((line for line in output.splitlines() if "resumed" in line), "from the start"))
    print(f"{half_written} of {num_kills} kills left a checkpoint half written")

    (step, params), (other_step, other_params) = params_of(straight), params_of(killed)
    assert step == other_step == 4 * NUM_EPOCHS
    jax.tree.map(np.testing.assert_array_equal, params, other_params)
    assert curves(straight) == curves(killed)
