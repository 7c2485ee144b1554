import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.augmentation import __main__ as augmentation
from benchmarks.augmentation import measure
from cifar_jax import augment, engine, experiment


@pytest.mark.parametrize("line", measure.LINES)
def test_every_line_can_be_traced(line):
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8)
    if augment.is_mix(line):
        out = jax.eval_shape(augment.parse_mix(line), key, images).images
    else:
        out = jax.eval_shape(augment.parse(line), key, images)
    assert out.shape == images.shape


def test_loops_are_interleaved_and_timed_per_batch(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(measure.harness.time, "perf_counter", lambda: clock[0])

    def make_run(name, seconds):
        def run(count):
            clock[0] += seconds * count
            calls.append((name, count))

        return run

    loops = [make_run("a", 0.002), make_run("b", 0.005)]
    ms = measure.time_loops(loops, 3, 0.5)
    np.testing.assert_allclose(ms, [[2.0] * 3, [5.0] * 3])
    assert calls[-6:] == [("a", 250), ("b", 100)] * 3


def test_the_time_without_augmentation_is_subtracted(monkeypatch):
    monkeypatch.setattr(measure, "make_loop", lambda line, batch_size: line)
    monkeypatch.setattr(measure, "time_loops", lambda *_: [[1.0, 1.0, 9.0], [3.0, 4.0, 13.0]])
    network = {"step_time_ms": {"median": 57.0}, "dtype": "float32", "used_elsewhere": 0.5}
    timed = []
    monkeypatch.setattr(
        measure, "measure_network", lambda _, settings, __: timed.append(settings) or network
    )
    monkeypatch.setattr(measure, "background_load", lambda *_: 0.1)
    (record,) = measure.measure_lines(["flip"], 4, 3, 1.0)
    assert record["ms"] == 3.0 and record["share_of_step"] == 0.05
    assert record["used_elsewhere"] == 0.5  # the maximum of both measurements
    (settings,) = timed
    assert settings.augment.ops == settings.augment.mix == ""


@pytest.mark.slow
def test_command_writes_a_record_per_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "MODEL", "cifar10/cnn_small")
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)
    out = tmp_path / "new" / "results.jsonl"
    flags = ["--batch_size", "4", "--rounds", "1", "--seconds", "0.01", "--out", str(out)]
    assert augmentation.main(["", "flip|crop(4)", "mixup(0.2)", *flags]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["augmentation"] for r in records] == ["flip|crop(4)", "mixup(0.2)"]
    assert all(r["step_ms"] > 0 and r["batch_size"] == 4 and "git_commit" in r for r in records)
    assert "mixup(0.2)" in capsys.readouterr().out
    assert augmentation.main(["", "flop", *flags]) == 1
    assert "did you mean" in capsys.readouterr().err
    for wrong in (["flip", "--rounds", "0"], ["flip", "--seconds", "-1"], [""]):
        assert augmentation.main(["", *wrong]) == 1
    assert augmentation.main(["", "flip", "--out", "/proc/none/out.jsonl"]) == 1
