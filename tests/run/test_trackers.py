import json
import os
import time

import pytest
import reporting

from cifar_jax.errors import UserError
from cifar_jax.run import trackers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Returns a workdir, and makes trackers write to the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # restored after the test
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    reporting.write_run(tmp_path / "run")
    return tmp_path / "run"


def log(line, folder, rows, completed=(), ends=True):
    """Logs the remaining rows of a run, and its end, to the trackers named in `line`."""
    with trackers.opened(line, folder, list(completed)) as opened:
        for tracker in opened:
            for row in rows:
                tracker.epoch(row)
            if ends:
                tracker.finish(json.loads((folder / "summary.json").read_text()))


def test_mlflow_shows_an_interrupted_run_once(folder, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    rows = reporting.read(folder).rows
    log("mlflow", folder, rows[:3], ends=False)  # the third row follows the last checkpoint
    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    experiment_id = client.get_experiment_by_name("cifar_jax").experiment_id
    assert client.search_runs([experiment_id])[0].info.status == "KILLED"
    log("mlflow", folder, rows[2:], completed=rows[:2])
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["optim.name"] == "adam"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["train_loss"]) for r in rows]
    summary = reporting.read(folder).summary
    assert run.data.metrics["final/test_accuracy"] == summary["test_accuracy"]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == set(trackers.FILES)
    # Resume from a folder whose store lacks the run: MLflow creates a new run with all rows.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    log("mlflow", folder, rows[4:], completed=rows[:4])
    other = mlflow.MlflowClient(tracking_uri=f"file:{elsewhere / 'mlruns'}")
    (again,) = other.search_runs([other.get_experiment_by_name("cifar_jax").experiment_id])
    assert len(other.get_metric_history(again.info.run_id, "train_loss")) == len(rows)


def test_mlflow_completes_the_row_of_a_killed_process(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    rows = reporting.read(folder).rows[:2]
    log_metric = mlflow.MlflowClient.log_metric

    def stop_before_images_per_second(client, run_id, name, value, step):
        if name == "images_per_second" and step == rows[1]["step"]:
            raise KeyboardInterrupt
        log_metric(client, run_id, name, value, step=step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "log_metric", stop_before_images_per_second)
        log("mlflow", folder, rows, ends=False)
    log("mlflow", folder, [], completed=rows, ends=False)
    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    (run,) = client.search_runs([client.get_experiment_by_name("cifar_jax").experiment_id])
    history = client.get_metric_history(run.info.run_id, "images_per_second")
    assert [m.step for m in history] == [row["step"] for row in rows]


def test_unreachable_mlflow_server_is_disabled_soon(folder, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    start = time.monotonic()
    log("mlflow", folder, reporting.read(folder).rows)
    assert "mlflow disabled" in capsys.readouterr().err
    assert time.monotonic() - start < 30


def test_mlflow_uses_the_tracking_uri(folder, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    log("mlflow", folder, reporting.read(folder).rows)
    client = mlflow.MlflowClient()
    assert client.get_experiment_by_name("cifar_jax") is not None


def test_tracker_is_disabled_after_an_exception(folder, monkeypatch, capsys):
    class Broken:
        def __init__(self, *_):
            pass

        def epoch(self, row):
            raise OSError("no space left")

        def close(self):
            closed.append(self)
            raise OSError("no space left")

    closed = []
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Broken)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    log("mlflow", folder, reporting.read(folder).rows)
    assert capsys.readouterr().err == "mlflow disabled: OSError: no space left\n"
    assert len(closed) == 1  # so that the run does not look active


def test_bug_in_a_tracker_keeps_its_traceback(folder, monkeypatch, capsys):
    class Broken:
        def __init__(self, *_):
            raise ZeroDivisionError

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Broken)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    log("mlflow", folder, reporting.read(folder).rows)
    stderr = capsys.readouterr().err
    assert "raise ZeroDivisionError" in stderr and "mlflow disabled: ZeroDivisionError" in stderr


def test_wandb_added_on_resume_gets_the_completed_epochs(folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    rows = reporting.read(folder).rows
    steps = []
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda self, values, step: steps.append(step)
    )
    log("wandb", folder, rows[2:3], completed=rows[:2], ends=False)
    log("wandb", folder, rows[3:], completed=rows[:3], ends=False)
    assert steps == [row["step"] for row in rows]


def test_wandb_writes_the_run_offline(folder):
    pytest.importorskip("wandb")
    log("wandb", folder, reporting.read(folder).rows)
    (kept,) = (folder / "wandb").glob("offline-run-*")
    assert list(kept.glob("*.wandb"))


def test_parse_returns_the_names_of_trackers(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    assert trackers.parse("") == []
    assert trackers.parse("mlflow, wandb, mlflow") == ["mlflow", "wandb"]
    with pytest.raises(UserError, match="did you mean 'mlflow'"):
        trackers.parse("mlfow")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"requirements-trackers\.txt"):
        trackers.parse("mlflow")
