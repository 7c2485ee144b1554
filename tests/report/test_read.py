import pytest
import reporting
import tiny

from cifar_jax.errors import UserError
from cifar_jax.report.read import read


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


def test_every_log_in_results_can_be_read():
    logs = sorted((tiny.ROOT / "benchmarks" / "results" / "accuracy").rglob("summary.json"))
    assert logs
    for path in logs:
        run = read(path.parent)
        assert run.series("train_loss")[0][-1] == run.summary["epochs"]
