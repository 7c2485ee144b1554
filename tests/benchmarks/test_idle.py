import subprocess
import sys

from benchmarks import idle


def test_what_others_take_of_the_machine():
    # (own, busy, idle) seconds: 6 of 8 busy, 4 of them ours.
    assert idle.used_elsewhere((1.0, 10.0, 5.0), (5.0, 16.0, 7.0)) == 0.25
    assert idle.used_elsewhere((1.0, 10.0, 5.0), (5.0, 13.99, 9.0)) == 0.0  # rounding
    assert idle.used_elsewhere((1.0, 10.0, 5.0), (1.002, 10.0, 5.0)) == 0.0  # within a tick
    assert idle.used_elsewhere((), ()) is None


def test_a_reading_grows_with_what_this_process_does():
    before = idle.processor_seconds()
    while idle.processor_seconds()[0] - before[0] < 0.3:
        sum(range(10000))
    after = idle.processor_seconds()
    assert after[1] - before[1] > 0.2 and after[2] >= before[2]


def test_what_a_child_does_is_this_processs():
    before = idle.processor_seconds()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert idle.processor_seconds()[0] - before[0] >= 0.5
