import subprocess
import sys

from benchmarks import idle


def test_background_load_is_the_share_of_other_processes():
    # (used, busy, idle) seconds: 6 of 8 are busy, of which this process used 4.
    assert idle.background_load((1.0, 10.0, 5.0), (5.0, 16.0, 7.0)) == 0.25
    assert idle.background_load((1.0, 10.0, 5.0), (5.0, 13.99, 9.0)) == 0.0  # rounding
    assert idle.background_load((1.0, 10.0, 5.0), (1.002, 10.0, 5.0)) == 0.0  # within a tick
    assert idle.background_load((), ()) is None


def test_readings_increase_with_the_work_of_this_process():
    before = idle.processor_seconds()
    while idle.processor_seconds()[0] - before[0] < 0.3:
        sum(range(10000))
    after = idle.processor_seconds()
    assert after[1] - before[1] > 0.2 and after[2] >= before[2]


def test_readings_include_child_processes():
    before = idle.processor_seconds()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert idle.processor_seconds()[0] - before[0] >= 0.5
