import json

import jax
import pytest

from benchmarks import augmentation, throughput
from cifar_jax import augment, engine, experiment


def test_every_line_can_be_parsed():
    for line in augmentation.LINES:
        is_mix = line.split("(")[0] in augment.MIXES
        assert augment.parse_mix(line) if is_mix else augment.parse(line)


def test_milliseconds_are_those_of_one_batch(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(augmentation.time, "perf_counter", lambda: clock[0])

    def run(count):
        clock[0] += 0.002 * count
        calls.append(count)

    assert augmentation.milliseconds(run, 3, 0.5) == pytest.approx([2.0] * 3)
    assert calls[-3:] == [250] * 3


def test_the_loop_without_augmentation_is_taken_off(monkeypatch):
    times = iter(([1.0, 1.0, 9.0], [3.0, 4.0, 5.0]))
    monkeypatch.setattr(augmentation, "make_loop", lambda line, batch_size: line)
    monkeypatch.setattr(augmentation, "milliseconds", lambda *_: next(times))
    step = {"step_time_ms": {"median": 57.0}, "dtype": "float32"}
    monkeypatch.setattr(throughput, "measure", lambda *_: step)
    (record,) = augmentation.measure(["flip"], 4, 3, 1.0)
    assert record["ms"] == 3.0 and record["share_of_step"] == 0.05


def test_command_writes_a_record_for_each_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(augmentation, "MODEL", "cifar10/cnn_small")
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
    assert augmentation.main(["", "flip", "--rounds", "0"]) == 1
