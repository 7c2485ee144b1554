import csv
import json
import math
import os
import signal

import jax
import numpy as np
import pytest
import tiny

from cifar_jax import data, engine, experiment, loop
from cifar_jax.errors import UserError
from cifar_jax.preemption import Preempted
from cifar_jax.train import train

SUMMARY_FIELDS = {
    *("experiment", "model", "num_params", "dataset", "label", "seed", "epochs", "steps"),
    *("batch_size", "test_accuracy", "test_loss", "top5_accuracy", "train_accuracy"),
    *("val_accuracy", "best_epoch", "selected_on", "step_time_ms", "images_per_second"),
    *("compile_seconds", "train_seconds", "peak_memory_bytes", "device", "versions", "git_commit"),
}


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch):
    monkeypatch.setattr(data, "load", tiny.load)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    use_devices(monkeypatch, 1)


def use_devices(monkeypatch, count):
    """A run takes all devices that there are; here, so many of the eight."""
    mesh = engine.make_mesh(jax.devices()[:count])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def params_of(workdir):
    """Returns the latest checkpoint's state without knowing its structure."""
    import orbax.checkpoint as ocp

    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    path = workdir / "checkpoints" / str(max(steps)) / "state"
    return max(steps), ocp.StandardCheckpointer().restore(path.resolve())["state"]["params"]


def assert_same_run(first, second):
    """Same parameters, bit for bit, and the same curves but for the times."""
    (step, params), (other_step, other_params) = params_of(first), params_of(second)
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, params, other_params)
    timed = ("seconds", "images_per_second")
    rows, other_rows = (
        [{k: v for k, v in row.items() if k not in timed} for row in read_csv(w / "metrics.csv")]
        for w in (first, second)
    )
    assert rows == other_rows


def test_a_run_leaves_what_the_contract_says(tmp_path, capsys):
    config = tiny.make_config(num_epochs=3, selected_on="val", data__val_fraction=0.2)
    summary = train(config, tmp_path)

    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary.keys() >= SUMMARY_FIELDS
    assert summary["steps"] == 12 and summary["num_params"] == 1_147_466
    rows = read_csv(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["val_accuracy"] == float(best["val_accuracy"])

    saved = np.load(tmp_path / "predictions.npz")
    assert saved["logits"].shape == (40, 10)
    np.testing.assert_array_equal(saved["labels"], tiny.dataset(num_val=32).test.labels)
    assert np.mean(saved["predictions"] == saved["labels"]) == summary["test_accuracy"]
    losses = -jax.nn.log_softmax(saved["logits"])[np.arange(40), saved["labels"]]
    assert summary["test_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)

    assert json.loads((tmp_path / "config.json").read_text())["num_epochs"] == 3
    events = {p.parent.name for p in (tmp_path / "tensorboard").rglob("events.*")}
    assert events == {"train", "val"}
    printed = capsys.readouterr().out
    assert "dense1/kernel" in printed and "epoch 3/3" in printed and "test accuracy" in printed

    # Again: nothing is trained, the same comes back.
    assert train(config, tmp_path) == summary
    assert "is complete" in capsys.readouterr().out


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run of three epochs, four steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", tiny.load)
        use_devices(patch, 1)
        workdir = tmp_path_factory.mktemp("straight")
        train(tiny.make_config(num_epochs=3), workdir)
    return workdir


@pytest.mark.parametrize("stop_at", [1, 4, 6, 11])
def test_stopped_by_sigterm_and_resumed_equals_straight(tmp_path, monkeypatch, straight, stop_at):
    config = tiny.make_config(num_epochs=3)
    clock_wait = loop.Clock.wait

    def wait(self, call):
        if call.first_step + call.num_steps == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return clock_wait(self, call)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Clock, "wait", wait)
        patch.setattr(loop.Clock, "next_steps", lambda self, left: 1)
        with pytest.raises(Preempted, match="same command resumes") as stopped:
            train(config, tmp_path)
    assert stopped.value.exit_code == 143
    step, _ = params_of(tmp_path)
    assert stop_at <= step <= stop_at + 1
    train(config, tmp_path)
    assert_same_run(tmp_path, straight)


def test_more_epochs_continue_a_complete_run(tmp_path, straight):
    train(tiny.make_config(num_epochs=1), tmp_path)
    train(tiny.make_config(num_epochs=3), tmp_path)
    assert_same_run(tmp_path, straight)


def test_eight_devices_continue_what_one_began_and_back(tmp_path, monkeypatch, straight):
    for num_epochs, num_devices in ((1, 8), (2, 1), (3, 8)):
        use_devices(monkeypatch, num_devices)
        train(tiny.make_config(num_epochs=num_epochs), tmp_path)
    step, params = params_of(tmp_path)
    assert step == 12
    # Adam turns a last bit's difference in a gradient near zero into one of the update; an epoch
    # of other random numbers would be off by more than 0.05.
    assert tiny.distance(params, params_of(straight)[1]) < 2e-3


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = tiny.make_config(optim__name="sgd", optim__learning_rate=1e-3)
    train(config, tmp_path)
    before = params_of(tmp_path)
    wild = tiny.make_config(num_epochs=3, optim__name="sgd", optim__learning_rate=1e-3)
    # The same run, as claim() sees it, but with a rate that no network survives.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.optim.schedules, "create", lambda *a, **k: lambda step: 1e30)
        with pytest.raises(loop.Diverged, match=r"the loss became (nan|inf) in steps \d+ to \d+"):
            train(wild, tmp_path)
    step, params = params_of(tmp_path)
    assert step == before[0] == 8
    jax.tree.map(np.testing.assert_array_equal, params, before[1])


def test_the_epoch_picked_on_the_test_set_is_the_one_reported(tmp_path):
    config = tiny.make_config(num_epochs=4, selected_on="test", optim__learning_rate=3e-3)
    summary = train(config, tmp_path)
    accuracies = [float(row["test_accuracy"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert summary["test_accuracy"] == max(accuracies)
    assert summary["best_epoch"] == 1 + int(np.argmax(accuracies))
    assert summary["val_accuracy"] is None and summary["selected_on"] == "test"


def test_another_runs_workdir_is_refused(straight):
    with pytest.raises(UserError, match="holds another run: seed is 0 there and 1 here"):
        train(tiny.make_config(num_epochs=3, seed=1), straight)
    cosine = tiny.make_config(num_epochs=5, optim__schedule="cosine")
    with pytest.raises(UserError, match="num_epochs is 3 there and 5 here"):
        train(cosine, straight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(batch_size=101), "1 to 100, the images of the training split, not 101"),
        (dict(model__name="cnn33"), "unknown model 'cnn33': did you mean 'cnn3'"),
        (dict(selected_on="val"), "needs data.val_fraction above 0"),
        (dict(selected_on="best"), "unknown selected_on 'best'"),
        (dict(num_epochs=0), "num_epochs needs a whole number of at least 1, not 0"),
        (dict(dtype="float16"), "unknown dtype 'float16'"),
        (dict(optim__name="adamm"), "did you mean 'adam'"),
        (dict(optim__schedule="cosin"), "did you mean 'cosine'"),
        (dict(augment__ops="flop"), "did you mean 'flip'"),
        (dict(label_smoothing=1.0), "label_smoothing needs a value in"),
        (dict(steps_per_call=-1), "steps_per_call needs 0 or more"),
    ],
)
def test_wrong_configs_are_refused_before_anything_is_written(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(tiny.make_config(**overrides), tmp_path / "run")
    assert not list(tmp_path.rglob("*.csv"))


def test_train_loss_is_the_mean_over_all_examples(tmp_path, straight):
    rows = read_csv(straight / "metrics.csv")
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
