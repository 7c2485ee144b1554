import json

import pytest
import tiny

from benchmarks import table
from benchmarks.published import PUBLISHED


def test_the_readme_shows_what_the_logs_say():
    readme = (tiny.ROOT / "README.md").read_text()
    assert table.rewritten(readme) == readme, "run `python -m benchmarks.table`"


def test_a_log_becomes_a_row(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks/results/accuracy/coarse/cnn2_batch64/seed0"
    tiny.write_log(folder, "coarse/cnn2_batch64", 0.5, num_epochs=5)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "benchmarks/results")
    lines = table.accuracy().splitlines()[2:]
    assert len(lines) == len(PUBLISHED)
    (row,) = (line for line in lines if "[coarse/cnn2_batch64]" in line)
    for cell in ("49.6%", "50.00%", "shortened", "5 of 20", "test", "7.25 ms", "2,119,252"):
        assert f"| {cell} |" in row
    assert "| 2 x Abacus |" in row
    assert "[0](benchmarks/results/accuracy/coarse/cnn2_batch64/seed0)" in row
    (row,) = (line for line in lines if "[coarse/cnn4_fine]" in line)
    for cell in ("38.5%", "not run yet", "100", "2,175,748"):
        assert f"| {cell} |" in row


def test_a_run_that_a_callback_ended_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks/results/accuracy/coarse/cnn4/seed0"
    tiny.write_log(folder, "coarse/cnn4", 0.55)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"epochs": 31}))
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "benchmarks/results")
    assert "| 100, stopped after 31 | " in table.accuracy()


def test_a_cell_cannot_break_its_table():
    assert table._markdown(("a",), [("x|y",)]).splitlines()[-1] == r"| x\|y |"


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="table:accuracy"):
        table.rewritten("# nothing")


def test_speed_is_the_newest_record_of_each_device_that_was_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    records = [
        {"augmentation": "flip", "batch_size": 8, "ms": ms, "share_of_step": 0.5,
         "used_elsewhere": elsewhere, "device": {"kind": kind, "count": 1}}
        for ms, elsewhere, kind in (
            (1.0, 0.0, "A"), (2.0, None, "A"), (3.0, 0.2, "A"), (4.0, 0.1, "B"),
        )
    ]  # fmt: skip
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "augmentation.jsonl").write_text(lines)
    rows = table.augmentation().splitlines()[2:]
    assert [row.split(" | ")[2::2] for row in rows] == [["2.00 ms", "A |"], ["4.00 ms", "B |"]]


def test_an_epochs_contenders_stand_from_the_fastest_on(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    record = {
        "config": "assignment/cnn3", "seconds": {"torch": 30.0, "cifar_jax": 20.0}, "images": 1000,
        "turns": {
            "torch": [{"images": 1000, "seconds": 30.0}],
            "cifar_jax": [{"images": 1000, "seconds": 20.0}],
        },
        "used_elsewhere": 0.0, "device": {"kind": "Abacus", "count": 1},
    }  # fmt: skip
    (tmp_path / "epoch.jsonl").write_text(json.dumps(record) + "\n")
    assert table.epoch().splitlines()[2:] == [
        "| cifar_jax | 20.0 s | 50 | 1.00 | Abacus |",
        "| PyTorch, DataLoader | 30.0 s | 33 | 1.50 | Abacus |",
    ]
