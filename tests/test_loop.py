import jax
import numpy as np
import pytest
import tiny

from cifar_jax import loop
from cifar_jax.clock import Clock


@pytest.fixture(scope="module")
def eng():
    return tiny.make_engine()  # 100 images in batches of 16: 7 steps per epoch


def run(eng, clock, last_step=7, should_stop=lambda step: False):
    state = eng.init()
    seen = []
    state, _, values, step = loop.run_until(
        eng, state, eng.no_metrics(), eng.plan(state, 0), 0, last_step, clock,
        should_stop=should_stop, progress=lambda step, values: seen.append((step, values)),
    )  # fmt: skip
    return state, values, step, seen


def test_every_call_is_reported_in_order(eng):
    state, values, step, seen = run(eng, Clock(3))
    assert [s for s, _ in seen] == [3, 6, 7] and step == 7 == int(state.step)
    assert seen[-1][1] == values
    assert 0 < values["loss"] < 10


def test_the_length_of_calls_does_not_affect_results(eng):
    (first, values, *_), (second, others, *_) = (run(eng, Clock(n)) for n in (2, 7))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert values == others


def test_stops_when_requested_with_all_metrics_fetched(eng):
    state, values, step, seen = run(eng, Clock(1), should_stop=lambda step: step == 2)
    assert step == 2 == int(state.step)
    assert [s for s, _ in seen] == [1, 2] and seen[-1][1] == values


def test_takes_no_step_after_a_stop(eng):
    state, values, step, seen = run(eng, Clock(1), should_stop=lambda step: True)
    assert (step, values, seen, int(state.step)) == (0, {}, [], 0)


def test_work_is_queued_before_the_metrics_of_its_call_are_fetched(eng, monkeypatch):
    order, wait = [], Clock.wait
    monkeypatch.setattr(
        Clock, "wait", lambda c, call: order.append(call.first_step) or wait(c, call)
    )
    state = eng.init()
    queued = lambda state, step: order.append(("queued", step, int(state.step)))  # noqa: E731
    loop.run_until(
        eng, state, eng.no_metrics(), eng.plan(state, 0), 0, 7, Clock(4),
        should_stop=lambda step: False, progress=lambda *_: None, queued=queued,
    )  # fmt: skip
    assert order == [("queued", 4, 4), ("queued", 7, 7), 0, 4]


def test_clock_counts_the_time_that_it_waited(eng):
    clock = Clock(1)
    clock.seconds = 10.0
    run(eng, clock, last_step=5)
    assert len(clock.step_times) == 4  # the first call warms up
    assert 10.0 + sum(clock.step_times) / 1e3 < clock.seconds < 15.0
