import pytest

from benchmarks import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the loops move: (name, seconds per step, per call) -> loop; its calls."""
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def make(name, per_step, per_call=0.0):
        def run(num_steps):
            now[0] += per_call + per_step * num_steps
            calls.append((name, num_steps))

        return run

    return make, calls


def test_a_round_is_so_long_that_its_call_hardly_counts(clock):
    make, _ = clock
    # A single step would be timed at ten times what it takes.
    num_steps = timing.calibrate(make("a", 0.0001, 0.0009), 0.02)
    assert 0.015 < 0.0001 * num_steps < 0.022
    assert timing.calibrate(make("b", 5.0), 0.02) == 1


def test_loops_take_turns_with_the_same_steps(clock):
    make, calls = clock
    (a, b), num_steps = timing.take_turns([make("a", 0.01), make("b", 0.02)], seconds=3.0)
    assert num_steps == 20 and a == pytest.approx([0.01] * 15) and b == pytest.approx([0.02] * 15)
    assert calls[-4:] == [("a", 20), ("b", 20)] * 2


def test_slow_steps_get_three_rounds_of_one(clock):
    make, _ = clock
    ((times,), num_steps) = timing.take_turns([make("a", 5.0)], seconds=2.0)
    assert num_steps == 1 and times == [5.0] * 3
