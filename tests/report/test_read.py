import json
import shutil

import numpy as np
import pytest
import reporting
import tiny

from cifar_jax.errors import UserError
from cifar_jax.report.read import read


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return reporting.write_run(tmp_path_factory.mktemp("read") / "run")


@pytest.fixture
def run(original, tmp_path):
    """Returns a complete run whose files the test may change."""
    return original._replace(folder=shutil.copytree(original.folder, tmp_path / "run"))


def test_complete_run_is_read(tmp_path):
    run = reporting.write_run(tmp_path / "run")
    assert run.name == "assignment/cnn3, seed 0" and run.curve == "val"
    assert run.config["optim.name"] == "adam" and run.summary["test_loss"] == 2.25
    epochs, values = run.series("val_accuracy")
    assert epochs == [1, 3, 4, 5] and values == pytest.approx([0.09, 0.27, 0.36, 0.45])
    assert run.events() == [(2, reporting.CUT)]
    assert run.predictions.class_names == reporting.FINE


def test_run_that_is_training_is_read_up_to_its_latest_complete_row(tmp_path):
    reporting.write_run(tmp_path / "run", complete=False)
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("4,400,0.1,1.")  # an incomplete row
    run = read(tmp_path / "run")
    assert run.epochs_done == 3 and run.summary is None and run.predictions is None


def test_run_without_epochs_has_no_rows(tmp_path):
    reporting.write_run(tmp_path / "run", complete=False)
    (tmp_path / "run" / "metrics.csv").unlink()
    assert read(tmp_path / "run").rows == []


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        read(tmp_path / "none")
    reporting.write_run(tmp_path / "a" / "run")
    with pytest.raises(UserError, match=r"holds no run.*did you mean .*a/run"):
        read(tmp_path / "a")
    for name in ("config.json", "summary.json", "predictions.npz"):
        folder = tmp_path / name / "run"
        reporting.write_run(folder)
        (folder / name).write_text("{")
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read(folder)


def test_corrupt_and_foreign_files_are_refused(tmp_path):
    run = reporting.write_run(tmp_path / "run")
    path = run.folder / "predictions.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"predictions\.npz cannot be read"):
        read(run.folder)
    (run.folder / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"summary\.json is not from a cifar_jax run"):
        read(run.folder)
    (run.folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="it lacks experiment, seed"):
        read(run.folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "3,300,0.1,abc,0.3,0.4,1,0.2,0.3,2,500,",
            "line 4: train_loss must be a number, got 'abc'",
        ),
        ("2,300,0.1,1,0.3,0.4,1,0.2,0.3,2,500,", "line 4: epoch 2 follows epoch 2"),
        ("2.5,300,0.1,1,0.3,0.4,1,0.2,0.3,2,500,", "line 4: epoch must be a whole number"),
        (",300,0.1,1,0.3,0.4,1,0.2,0.3,2,500,", "line 4: epoch and step must be a whole number"),
        ("nan,300,0.1,1,0.3,0.4,1,0.2,0.3,2,500,", "line 4: epoch must be a whole number"),
        ("3,300,0.1,1,30,0.4,1,0.2,0.3,2,500,", "train_accuracy must be a fraction from 0 to 1"),
        ("3,300,0.1,1", "line 4 has 4 values, but the header has 12"),
    ],
)
def test_values_that_are_wrong_are_refused(run, line, message):
    lines = (run.folder / "metrics.csv").read_text().splitlines()
    (run.folder / "metrics.csv").write_text("\n".join([*lines[:3], line, *lines[4:], ""]))
    with pytest.raises(UserError, match=message):
        read(run.folder)


def test_values_that_are_not_finite_are_left_out_with_a_note(run):
    line = "3,300,inf,nan,0.3,0.4,nan,0.2,0.3,2,500,"
    lines = (run.folder / "metrics.csv").read_text().splitlines()
    (run.folder / "metrics.csv").write_text(
        "\n".join([*lines[:3], line, line.replace("3", "4"), ""])
    )
    found = read(run.folder)
    assert found.series("train_loss")[0] == [1, 2]
    assert found.notes == (
        "Values left out because they are not finite: learning_rate of epoch 3, 4; "
        "train_loss of epoch 3, 4; val_loss of epoch 3, 4.",
    )


@pytest.mark.parametrize(
    ("file", "field", "value", "rule"),
    [
        ("summary.json", "test_accuracy", None, "a fraction from 0 to 1, got None"),
        ("summary.json", "test_accuracy", 45.0, "a fraction from 0 to 1, got 45.0"),
        ("summary.json", "test_loss", float("nan"), "a finite number, got nan"),
        ("summary.json", "epochs", "five", "a whole number of at least 0, got 'five'"),
        ("summary.json", "selected_on", "first", "one of last,"),
        ("summary.json", "step_time_ms", {"median": None}, "an object with the numbers median and"),
        ("summary.json", "device", "cpu", "an object with count and kind"),
        ("summary.json", "train_accuracy", "high", "a fraction from 0 to 1"),
        ("config.json", "experiment", [1], "a string, got"),
        ("config.json", "num_epochs", True, "a whole number of at least 0, got True"),
    ],
)
def test_fields_of_the_wrong_kind_are_refused(run, file, field, value, rule):
    values = json.loads((run.folder / file).read_text())
    (run.folder / file).write_text(json.dumps(values | {field: value}))
    with pytest.raises(UserError, match=rf"{file}: {field} must be {rule}"):
        read(run.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.full((6, 3), np.nan, np.float32)}, "logits must be finite"),
        ({"logits": np.array(["a"])}, "logits must be a table of numbers"),
        ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "labels must be from 0 to 2"),
        ({"labels": np.array([0, 1])}, "labels must be 6 whole numbers"),
        ({"predictions": np.zeros(6)}, "predictions must be 6 whole numbers"),
        ({"predictions": np.array([0, 1, 2, 0, 1, 1])}, "with the largest logits"),
        ({"class_names": np.array(["a", "b"])}, "logits have 3 classes, but class_names has 2"),
        ({"labels": np.array([None] * 6)}, "predictions.npz cannot be read"),  # needs pickle
    ],
)
def test_predictions_that_do_not_fit_are_refused(run, change, message):
    labels = np.array([0, 1, 2, 0, 1, 2])
    arrays = {"logits": np.eye(3, dtype=np.float32)[labels], "labels": labels}
    arrays |= {"predictions": labels, "class_names": np.array(["a", "b", "c"])} | change
    np.savez(run.folder / "predictions.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read(run.folder)


def test_predictions_of_another_run_are_noted(run):
    assert run.notes == ()
    labels = np.arange(6, dtype=np.int32) % 3
    reporting.write_predictions(run.folder, labels, np.eye(3)[labels], ("a", "b", "c"))
    (note,) = read(run.folder).notes
    assert "predictions.npz is not from this run: 100.00% of its predictions" in note


def test_every_log_in_results_can_be_read():
    logs = sorted((tiny.ROOT / "benchmarks" / "results" / "accuracy").rglob("summary.json"))
    assert logs
    for path in logs:
        run = read(path.parent)
        assert run.series("train_loss")[0][-1] == run.summary["epochs"]
