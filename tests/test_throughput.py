import json

import jax
import pytest

from benchmarks import throughput
from cifar_jax import engine, experiment, models


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)


def test_every_network_is_timed_by_a_config_that_uses_it():
    assert {name.partition(" ")[0] for name in throughput.CONFIGS} == models.MODELS.keys()


def test_record_holds_what_was_measured(tmp_path, capsys):
    out = tmp_path / "new" / "results.jsonl"
    flags = ["", "cnn_small", "--rounds", "2", "--seconds", "0.01", "--out", str(out)]
    assert throughput.main(flags) == 0
    (record,) = map(json.loads, out.read_text().splitlines())
    expected = dict(model="cnn_small", batch_size=16, num_params=80_090, rounds=2, dtype="float32")
    assert {name: record[name] for name in expected} == expected
    assert record["compile_seconds"] > 0 and record["steps_per_round"] >= 1
    times = record["step_time_ms"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert record["images_per_second"] == pytest.approx(16e3 / times["median"])
    assert record["first_step_ms"] > 0 and "git_commit" in record and record["versions"]["jax"]
    assert "80,090" in capsys.readouterr().out


def test_wrong_flags_are_refused(capsys):
    assert throughput.main(["", "resnet81"]) == 1
    assert "did you mean" in capsys.readouterr().err
    for wrong in (["--rounds", "0"], ["--seconds", "nan"], ["--out", "/proc/none/out.jsonl"]):
        assert throughput.main(["", *wrong]) == 1
