import pytest

from cifar_jax import clock as clock_module
from cifar_jax.clock import Call, Clock
from cifar_jax.metrics import Metrics


def test_calls_are_lengthened_to_about_a_second():
    clock = Clock(0)
    assert clock.next_steps(1000) == 1
    clock.step_seconds = 0.02
    assert clock.next_steps(1000) == 50
    assert clock.next_steps(30) == 30
    clock.step_seconds = 5.0
    assert clock.next_steps(1000) == 1
    assert Clock(8).next_steps(1000) == 8


def test_processes_that_agree_on_a_duration_take_calls_of_the_same_length():
    clock = Clock(0)
    clock.step_seconds, clock.agreed_step_seconds = 0.02, 0.1
    assert clock.next_steps(1000) == 10
    clock.agreed_step_seconds = 0.0
    assert clock.next_steps(1000) == 1


def test_the_time_in_which_calls_overlap_counts_once(monkeypatch):
    now = iter([10.0, 13.0, 25.0])
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: next(now))
    clock = Clock(1)
    clock.seconds = 100.0
    # The second call is queued during the first, and the third after a gap.
    for started in (8.0, 9.0, 21.0):
        clock.wait(Call(Metrics.empty(), 0, 2, started))
    assert clock.seconds == pytest.approx(100 + 2 + 3 + 4)
    assert [*clock.step_times] == pytest.approx([1500, 2000])  # the first call warms up
    assert clock.step_seconds == pytest.approx(2.0)
