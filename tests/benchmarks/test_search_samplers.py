import json

import pytest
import searching

from benchmarks import search_samplers
from cifar_jax.run import config_json


def test_a_record_per_search(tmp_path, monkeypatch, capsys):
    searching.simulate(monkeypatch, lambda cfg, epoch: cfg.optim.learning_rate * epoch / 9)
    read = config_json.read_object
    summary = {"test_accuracy": 0.25}  # simulated training writes none
    monkeypatch.setattr(
        config_json,
        "read_object",
        lambda path: summary if path.name == "summary.json" else read(path),
    )
    out = tmp_path / "out.jsonl"
    flags = ("--seeds=2", "--trials=4", "--epochs=3", "--limit=300", f"--out={out}")
    assert search_samplers.main(["", *flags]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["sampler"], r["seed"]) for r in records] == [
        ("tpe", 0),
        ("random", 0),
        ("tpe", 1),
        ("random", 1),
    ]
    for record in records:
        best = record["best_so_far"]
        assert len(best) == 4 and best == sorted(best)
        assert best[-1] == pytest.approx(record["best_values"]["optim.learning_rate"] / 3)
        assert {"device", "versions", "git_commit", "is_busy"} <= record.keys()
    table = capsys.readouterr().out.splitlines()[-3:]
    mean = sum(r["best_so_far"][-1] for r in records[1::2]) / 2
    assert table[2].split()[:2] == ["random", "2"] and f"{mean:.2%}" in table[2]


@pytest.mark.parametrize("flag", ["--seeds=0", "--trials=1", "--epochs=2", "--limit=9"])
def test_wrong_numbers_are_refused(flag, tmp_path, capsys):
    assert search_samplers.main(["", flag, f"--out={tmp_path / 'out'}"]) == 1
    assert flag.partition("=")[0] in capsys.readouterr().err
