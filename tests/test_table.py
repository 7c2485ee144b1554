import json

import pytest
import tiny

from benchmarks import table
from cifar_jax import config


def test_the_readme_shows_what_the_logs_say():
    readme = (tiny.ROOT / "README.md").read_text()
    assert table.rewritten(readme) == readme, "run `python -m benchmarks.table`"


def test_a_log_becomes_a_row(tmp_path, monkeypatch):
    for seed, accuracy in ((0, 0.50), (1, 0.52)):
        folder = tmp_path / "benchmarks/results/accuracy/coarse/cnn2_batch64" / f"seed{seed}"
        folder.mkdir(parents=True)
        summary = {
            "experiment": "coarse/cnn2_batch64", "epochs": 5, "num_params": 1234, "seed": seed,
            "test_accuracy": accuracy, "selected_on": "test", "step_time_ms": {"median": 7.25},
            "device": {"kind": "Abacus", "count": 2},
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        settings = make_config(seed=seed, learning_rate=2e-3)
        (folder / "config.json").write_text(settings)
    (tmp_path / "configs").symlink_to(tiny.ROOT / "configs")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "benchmarks/results")
    (row,) = table.accuracy().splitlines()[2:]
    assert "`optim.learning_rate=0.002`" in row
    for cell in ("1,234", "5 of 20", "49.60%", "51.00% ± 1.41 (2 seeds)", "7.2 ms", "2 x Abacus"):
        assert f"| {cell} |" in row
    assert "[1](benchmarks/results/accuracy/coarse/cnn2_batch64/seed1)" in row
    # A run of other settings is a row of its own.
    (folder / "config.json").write_text(make_config(seed=1, learning_rate=3e-3))
    assert len(table.accuracy().splitlines()) == 4


def make_config(seed, learning_rate):
    cfg = config.load(tiny.ROOT / "configs/coarse/cnn2_batch64.py")
    config.choose_model(cfg, "cnn2")
    cfg.seed, cfg.optim.learning_rate, cfg.num_epochs = seed, learning_rate, 5
    return cfg.to_json()


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="table:accuracy"):
        table.rewritten("# nothing")
