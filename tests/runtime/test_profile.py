import gzip
import json

import jax
import numpy as np
import pytest
import tiny

from cifar_jax.runtime import profile


@pytest.fixture(scope="module")
def eng():
    return tiny.make_engine()  # 100 images in batches of 16: 7 steps per epoch


def run(eng, calls):
    state, metrics = eng.init(), eng.no_metrics()
    plan = eng.plan(state, 0)
    for num_steps in calls:
        state, metrics = eng.run(state, metrics, plan, num_steps)
    return state.params, metrics


def traced_events(folder):
    """Returns the names of the events in a trace in Chrome's format."""
    (path,) = folder.rglob("*.trace.json.gz")
    trace = json.loads(gzip.decompress(path.read_bytes()))
    return [event.get("name", "") for event in trace["traceEvents"]]


def test_third_call_is_traced_and_results_are_bitwise_equal(eng, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profile, "_MAX_STEPS", 2)
    calls = []
    with profile.traced(eng, tmp_path / "profile") as tracer:
        take = eng.run
        monkeypatch.setattr(eng, "run", lambda *args: calls.append(args[-1]) or take(*args))
        assert tracer.steps_per_epoch == 7
        result = run(tracer, (1, 1, 4, 1))
    assert calls == [1, 1, 2, 2, 1]  # the third call is split after the traced steps
    monkeypatch.undo()
    jax.tree.map(np.testing.assert_array_equal, result, run(eng, (1, 1, 4, 1)))
    assert capsys.readouterr().out == f"  trace of 2 steps in   {tmp_path / 'profile'}\n"
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    names = traced_events(tmp_path / "profile")
    assert any("fusion" in name or "convolution" in name for name in names)
    assert not any("backend_compile" in name for name in names)


def test_short_run_reports_that_it_has_no_trace(eng, tmp_path, capsys):
    with profile.traced(eng, tmp_path) as tracer:
        run(tracer, (1, 1))
    assert "no profile" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
