"""Checks the decision about CUDA graphs, with programs that stand in for the trial on a GPU."""

import json
import sys

import jax
import pytest

from cifar_jax import gpu_graph
from cifar_jax.errors import UserError

GOOD = {"is_equal": True, "ms": 0.25, "graph_ms": 0.2}


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Returns a function that replaces the trial by Python code; each trial appends to `ran`."""
    ran = tmp_path / "ran"

    def use(code):
        code = f"open({str(ran)!r}, 'a').write('x'); import json, os, sys, time; {code}"
        monkeypatch.setattr(gpu_graph, "_command", lambda: [sys.executable, "-c", code])

    use.count = lambda: len(ran.read_text()) if ran.exists() else 0
    return use


def answer(**changes):
    return f"print('noise'); print(json.dumps({GOOD | changes}))"


@pytest.mark.parametrize(
    ("code", "use", "is_final", "text"),
    [
        (answer(), True, True, "used (0.200 instead of 0.250 ms"),
        (answer(graph_ms=0.26), False, True, "it is slower (0.260 instead of 0.250 ms"),
        (answer(graph_ms=0.254), True, True, "used"),
        (answer(is_equal=False), False, True, "the parameters differ"),
        ("sys.exit('RESOURCE_EXHAUSTED: no memory')", False, False, "RESOURCE_EXHAUSTED"),
        ("sys.exit(1)", False, False, "no message"),
        ("os.abort()", False, True, "ended with signal 6"),
        ("os.kill(os.getpid(), 9)", False, False, "ended with signal 9"),
        ("pass", False, False, "it printed no result"),
        ("time.sleep(60)", False, True, "did not end within 1 s"),
    ],
)
def test_the_graph_is_used_if_it_works_and_is_not_slower(
    stand_in, monkeypatch, code, use, is_final, text
):
    monkeypatch.setattr(gpu_graph, "TIMEOUT_SECONDS", 1 if "sleep" in code else 60)
    stand_in(code)
    verdict = gpu_graph.probe()
    assert (verdict["use"], verdict["is_final"]) == (use, is_final)
    assert text in gpu_graph.describe(verdict)


def test_without_a_gpu_nothing_is_tried(stand_in):
    stand_in(answer())
    assert gpu_graph.decide("on") and not gpu_graph.decide("off")
    assert not gpu_graph.decide("auto") and stand_in.count() == 0
    with pytest.raises(UserError, match="unknown gpu_graph 'aut'; did you mean 'auto'"):
        gpu_graph.decide("aut")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretends that there is a GPU; returns the file of answers."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(
        gpu_graph, "_decide_automatically", gpu_graph._decide_automatically.__wrapped__
    )
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    yield tmp_path / "programs" / gpu_graph.FILE
    jax.config.update("jax_compilation_cache_dir", folder)


def test_a_final_answer_is_kept(stand_in, gpu, capsys):
    stand_in(answer())
    assert gpu_graph.decide("auto") and gpu_graph.decide("auto")
    assert stand_in.count() == 1
    assert capsys.readouterr().out.count("one CUDA graph per call") == 1
    (key,) = json.loads(gpu.read_text())
    assert jax.__version__ in key and jax.devices()[0].device_kind in key


def test_the_answer_can_be_decided_in_advance(stand_in, gpu, capsys):
    stand_in(answer())
    gpu_graph.main(["", "--decide"])
    verdict = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert verdict["use"] and [verdict] == [*json.loads(gpu.read_text()).values()]
    assert gpu_graph.decide("auto") and stand_in.count() == 1


def test_a_failed_trial_is_repeated_and_a_damaged_file_is_ignored(stand_in, gpu):
    gpu.parent.mkdir()
    gpu.write_text('{"key": 1}')
    stand_in("sys.exit('no memory')")
    assert not gpu_graph.decide("auto") and not gpu_graph.decide("auto")
    assert stand_in.count() == 2
    stand_in(answer())
    assert gpu_graph.decide("auto")
    assert [v["use"] for v in json.loads(gpu.read_text()).values()] == [True]


@pytest.mark.slow
def test_the_trial_compares_parameters_and_times(monkeypatch):
    """On a CPU both programs are the same."""
    monkeypatch.setattr(gpu_graph, "_NUM_CALLS", 3)
    graphs = []
    from cifar_jax import engine

    create = engine.create
    monkeypatch.setattr(
        engine, "create", lambda *a, **k: graphs.append(k["cuda_graph"]) or create(*a, **k)
    )
    measured = gpu_graph.measure(steps_per_call=1)
    assert graphs == [False, True] and measured["is_equal"]
    assert measured["ms"] > 0 and measured["graph_ms"] > 0
    train = gpu_graph._train
    monkeypatch.setattr(
        gpu_graph,
        "_train",
        lambda steps, cuda_graph: (jax.tree.map(lambda x: x + cuda_graph, train(1, False)[0]), 1),
    )
    assert not gpu_graph.measure(1)["is_equal"]
