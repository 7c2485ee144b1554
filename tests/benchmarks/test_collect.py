import json

import tiny
from test_gpu_suite import CPU, make_suite, write_records

from benchmarks import harness
from benchmarks.gpu_suite import __main__ as gpu_suite
from benchmarks.gpu_suite import collect


def test_unpacking_logs_does_not_overwrite_existing_files(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source / "a" / "seed0", target / "a" / "seed0"):
        folder.mkdir(parents=True)
    (source / "a" / "seed0" / "summary.json").write_text("new")
    (source / "a" / "seed0" / "config.json").write_text("new")
    (target / "a" / "seed0" / "summary.json").write_text("old")
    collect.pack(source, tmp_path / "logs.tar.gz")
    assert collect.unpack(tmp_path / "logs.tar.gz", target) == 1
    assert (target / "a" / "seed0" / "summary.json").read_text() == "old"
    assert (target / "a" / "seed0" / "config.json").read_text() == "new"


def test_measurements_are_collected_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    suite = make_suite(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "throughput.jsonl").write_text('{"model": "old"}\n')
    write_records(suite, "throughput", {"model": "a"}, {"model": "b"})
    write_records(suite, "gpu_graph", {"use": True})
    # Another machine has already trained the same experiment with the same seed.
    before = tmp_path / "results" / "accuracy" / "assignment/cnn3/seed0"
    tiny.write_log(before, "assignment/cnn3", 0.4)
    tiny.write_log(suite.work / "accuracy" / "assignment/cnn3/seed0", "assignment/cnn3", 0.5)
    collect.pack(suite.work / "accuracy", suite.out / "accuracy.tar.gz")
    for _ in range(2):
        assert gpu_suite.main(["", str(suite.out), "--collect"]) == 0
    lines = (tmp_path / "results" / "throughput.jsonl").read_text().splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["old", "a", "b"]
    (line,) = (tmp_path / "results/checks/gpu/machines.jsonl").read_text().splitlines()
    assert json.loads(line) == CPU | {"gpu_graph": [{"use": True}]}
    log = before.with_name("seed0_abacus")
    assert json.loads((log / "summary.json").read_text())["test_accuracy"] == 0.5
    assert (log / "config.json").exists()
    assert json.loads((before / "summary.json").read_text())["test_accuracy"] == 0.4
    printed = capsys.readouterr().out
    assert "throughput: 2 new records" in printed and "throughput: 0 new records" in printed


def test_a_trial_cannot_be_collected(tmp_path, capsys):
    suite = make_suite(tmp_path, CPU | {"small": True})
    assert gpu_suite.main(["", str(suite.out), "--collect"]) == 1
    assert "which are not results" in capsys.readouterr().err
    assert gpu_suite.main(["", str(suite.out)]) == 1
    assert "was started with --small" in capsys.readouterr().err
    assert gpu_suite.main(["", str(tmp_path / "none"), "--collect"]) == 1
    assert "no measurements" in capsys.readouterr().err
