"""Checks that a workdir made by commit cb05e25 can still be resumed, reported and used to predict.

workdir_cb05e25.tar.gz holds the workdir after two epochs of the command below (the first has the
better validation accuracy), cb05e25's prediction for an image, and the metrics.csv that cb05e25
wrote when it continued to four epochs.
"""

import csv
import json
import tarfile

import pytest
import tiny

from cifar_jax import main, predict
from cifar_jax.config import base
from cifar_jax.report import __main__ as report

FLAGS = (
    *("--config", str(tiny.ROOT / "configs" / "quickstart.py")),
    *("--config.data.limit=400", "--config.batch_size=40"),
    *("--config.model.name=cnn9", "--config.model.dropout=0.1"),
    "--config.model.layers=(4,'B','M',8,'D','M',8,'M','F',16)",
    *("--config.optim.learning_rate=0.01", "--config.augment.ops=crop(2)"),
    *("--config.plateau.patience=2", "--config.plateau.factor=0.5"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch, blank_figures):
    """Returns the folder of the unpacked archive."""
    with tarfile.open(tiny.ROOT / "tests" / "run" / "workdir_cb05e25.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(main, "exit_on_signals", lambda *_: None)
    return tmp_path


def train(folder, num_epochs):
    flags = ["--workdir", str(folder / "workdir"), f"--config.num_epochs={num_epochs}"]
    return main.main(["", *FLAGS, *flags])


def rows_of(path):
    """Returns the values of a metrics.csv without the times."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row.pop("events") == ""
    return [{k: float(v) for k, v in row.items() if "second" not in k} for row in rows]


def test_it_is_complete(folder, capsys):
    before = json.loads((folder / "workdir" / "summary.json").read_text())
    assert before["git_commit"].startswith("cb05e25")
    assert train(folder, num_epochs=2) == 0
    printed = capsys.readouterr().out
    assert "quickstart is complete" in printed and "figures in" in printed
    assert json.loads((folder / "workdir" / "summary.json").read_text()) == before


@pytest.mark.slow
def test_it_resumes_and_continues_near_cb05e25(folder, capsys):
    before = json.loads((folder / "workdir" / "summary.json").read_text())
    old = rows_of(folder / "workdir" / "metrics.csv")
    assert train(folder, num_epochs=4) == 0
    assert "resumed at step 20 of 40" in capsys.readouterr().out
    rows, expected = rows_of(folder / "workdir" / "metrics.csv"), rows_of(folder / "continued.csv")
    assert rows[:2] == old == expected[:2]
    assert len(rows) == len(expected) == 4
    for row, other in zip(rows, expected, strict=True):
        for name, value in row.items():
            # cb05e25 used other keys for crops and dropout masks, so values are close, not equal.
            images = 40 / 400 if "accuracy" in name else 0
            assert value == pytest.approx(other[name], rel=0.1, abs=images), name
    after = json.loads((folder / "workdir" / "summary.json").read_text())
    assert before.keys() <= after.keys() and after["best_epoch"] == 4


def test_a_field_added_since_then_may_only_have_its_default(folder, monkeypatch, capsys):
    get_config = base.get_config

    def get_config_with_hold():
        config = get_config()
        config.optim.hold = 0.8
        return config

    monkeypatch.setattr(base, "get_config", get_config_with_hold)
    flags = ["", "--workdir", str(folder / "workdir"), "--config.num_epochs=2", *FLAGS]
    assert main.main(flags) == 0
    assert main.main([*flags, "--config.optim.hold=0.7"]) == 1
    assert "optim.hold is 0.8 there and 0.7 here" in capsys.readouterr().err


def test_it_reports(folder):
    out = folder / "report.html"
    assert report.main([str(folder / "workdir"), "--out", str(out)]) == 0
    summary = json.loads((folder / "workdir" / "summary.json").read_text())
    assert f"{100 * summary['test_accuracy']:.2f}%" in out.read_text()
    assert "1 of 2" in out.read_text()


def test_it_predicts_from_the_epoch_that_it_reports(folder, capsys):
    image = folder / "image.png"
    assert predict.main(["--workdir", str(folder / "workdir"), "--json", str(image)]) == 0
    found = json.loads(capsys.readouterr().out)[str(image)]["top5"]
    expected = json.loads((folder / "predicted.json").read_text())
    assert [guess["class"] for guess in found] == [guess["class"] for guess in expected]
    for guess, other in zip(found, expected, strict=True):
        assert guess["probability"] == pytest.approx(other["probability"], rel=1e-4)
