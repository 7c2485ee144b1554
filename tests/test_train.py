import csv
import json
import math
import os
import re
import shutil
import signal
import tarfile

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from tiny import train

from cifar_jax import clock, experiment, loop, models, trainer
from cifar_jax import train as training
from cifar_jax.errors import UserError
from cifar_jax.run import checkpoint, workdir
from cifar_jax.runtime.signals import Preempted
from cifar_jax.step import Batch
from cifar_jax.trained import restore as trained
from cifar_jax.transfer import run_weights

pytestmark = pytest.mark.usefixtures("default_signals", "compiled_once")


def summary_fields_of_cb05e25():
    """Returns the fields of cb05e25's summary.json, none of which may be removed."""
    with tarfile.open(tiny.ROOT / "tests" / "run" / "workdir_cb05e25.tar.gz") as archive:
        return json.load(archive.extractfile("workdir/summary.json")).keys()


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
    """Asserts that the parameters are bitwise equal, and the curves are equal except for times."""
    (step, params), (other_step, other_params) = params_of(first), params_of(second)
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, params, other_params)
    timed = ("seconds", "images_per_second")
    rows, other_rows = (
        [{k: v for k, v in row.items() if k not in timed} for row in read_csv(w / "metrics.csv")]
        for w in (first, second)
    )
    assert rows == other_rows


def test_a_run_writes_the_documented_files(tmp_path, capsys):
    config = tiny.make_config(num_epochs=3, selected_on="val", data__val_fraction=0.2)
    summary = train(config, tmp_path)

    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary.keys() >= summary_fields_of_cb05e25()
    assert summary["steps"] == 12 and summary["num_params"] == 66_306
    rows = read_csv(tmp_path / "metrics.csv")
    seconds = [float(row["seconds"]) for row in rows]
    assert summary["train_seconds"] == pytest.approx(sum(seconds))
    assert summary["images_per_second"] == pytest.approx(3 * 100 / sum(seconds))
    assert 0 < summary["step_time_ms"]["median"] <= summary["step_time_ms"]["p95"]
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
    top5 = np.argsort(saved["logits"])[:, -5:] == saved["labels"][:, None]
    assert summary["top5_accuracy"] == pytest.approx(top5.any(1).mean())
    assert json.loads((tmp_path / "config.json").read_text())["num_epochs"] == 3
    events = {p.parent.name for p in (tmp_path / "tensorboard").rglob("events.*")}
    assert events == {"train", "val"}
    printed = capsys.readouterr().out
    assert "dense1/kernel" in printed and "epoch 3/3" in printed and "test accuracy" in printed
    assert "note:" not in printed

    # The second time, nothing is trained and the same summary is returned.
    assert train(config, tmp_path) == summary
    assert "is complete" in capsys.readouterr().out


def test_a_run_that_will_take_long_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "_LONG_EPOCH_SECONDS", 0.0)
    train(tiny.make_config(model=ConfigDict({"name": "cnn_small"})), tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert "an epoch takes about 0 minutes and the rest of the run 0.0 hours" in line


def test_the_estimate_counts_the_steps_that_are_left(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(trainer, "_estimate", lambda _, *steps: counts.append(steps) or "")
    for num_epochs in (1, 4):  # the second run continues the first
        train(tiny.make_config(num_epochs=num_epochs, steps_per_call=2), tmp_path)
    assert counts == [(4, 4), (4, 12)]


def test_the_estimate_is_in_minutes_and_hours():
    assert trainer._estimate(2900.0, 100, 1500) == ""
    line = trainer._estimate(24_000.0, 100, 1500)
    assert "about 40 minutes and the rest of the run 10.0 hours" in line


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Returns the workdir of an uninterrupted run of three epochs with four steps each."""
    workdir = tmp_path_factory.mktemp("straight")
    train(tiny.make_config(num_epochs=3), workdir)
    return workdir


def train_until(stop_at, config, workdir):
    """Trains until a SIGTERM that arrives while the loop waits for step `stop_at`."""
    clock_wait = clock.Clock.wait

    def wait(self, call):
        if call.first_step + call.num_steps == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return clock_wait(self, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock.Clock, "wait", wait)
        patch.setattr(clock.Clock, "next_steps", lambda self, left: 1)
        with pytest.raises(Preempted, match="same command resumes") as stopped:
            train(config, workdir)
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize("stop_at", [1, 4, 6, 11])
def test_a_run_stopped_by_sigterm_and_resumed_equals_an_uninterrupted_one(
    tmp_path, straight, stop_at
):
    config = tiny.make_config(num_epochs=3)
    train_until(stop_at, config, tmp_path)
    step, _ = params_of(tmp_path)
    assert stop_at <= step <= stop_at + 1
    train(config, tmp_path)
    assert_same_run(tmp_path, straight)


@pytest.mark.usefixtures("library_convolutions")
@pytest.mark.parametrize("average", [{"ema__decay": 0.9}, {"lookahead__every": 2}])
def test_a_run_with_an_average_and_growing_images_can_be_interrupted(tmp_path, average):
    config = tiny.make_config(
        num_epochs=3,
        drop_last=True,
        model=ConfigDict(tiny.SPLIT_NETWORK),
        augment__train_sizes=(16, 24),
        augment__train_size_epochs=(2,),
        **average,
    )
    undisturbed = train(config, tmp_path / "undisturbed")
    for stop_at in (2, 7):  # of 9 steps, in the first epoch and in the first one with 24 pixels
        train_until(stop_at, config, tmp_path / "interrupted")
    resumed = train(config, tmp_path / "interrupted")
    assert_same_run(tmp_path / "undisturbed", tmp_path / "interrupted")
    assert resumed["test_loss"] == undisturbed["test_loss"]

    # Predictions and transfer learning load the average that the run evaluated.
    loaded = trained.from_workdir(tmp_path / "interrupted")
    images, labels = tiny.dataset().test
    batch = Batch(images, labels, np.ones(len(labels), np.float32))
    logits, _ = loaded.parts.eval_step(*loaded.state.evaluated, batch)
    saved = np.load(tmp_path / "interrupted" / "predictions.npz")
    np.testing.assert_allclose(logits, saved["logits"], atol=1e-4)
    weights = run_weights.read(tmp_path / "interrupted").tensors
    np.testing.assert_array_equal(
        weights["dense.kernel"], loaded.state.evaluated[0]["dense"]["kernel"]
    )


@pytest.mark.usefixtures("library_convolutions")
def test_a_run_with_groups_of_parameters_and_muon_can_be_interrupted(tmp_path):
    config = tiny.make_config(
        num_epochs=3,
        model=ConfigDict(tiny.SPLIT_NETWORK),
        optim__learning_rate=3e-3,
        optim__schedule="polynomial",
        optim__rescale_kernels=True,
        optim__groups="""
            layers/0/bias: name='sgd', momentum=0.9, num_epochs=1.8
            dense/*: name='sgd', momentum=0.9, nesterov=True, learning_rate=0.05
            */kernel: name='muon', momentum=0.6, learning_rate=0.02
        """,
    )
    train(config, tmp_path / "undisturbed")
    for stop_at in (3, 10):  # of 12 steps, before and after the first bias stops training
        train_until(stop_at, config, tmp_path / "interrupted")
    train(config, tmp_path / "interrupted")
    assert_same_run(tmp_path / "undisturbed", tmp_path / "interrupted")
    # The kernels of muon have norm sqrt(output features) before their last, small update.
    params = params_of(tmp_path / "undisturbed")[1]
    norms = [np.linalg.norm(params["layers"][i]["kernel"]) for i in ("0", "3")]
    np.testing.assert_allclose(norms, [4**0.5, 8**0.5], rtol=0.02)


def test_more_epochs_continue_a_complete_run(tmp_path, straight):
    longer = tiny.make_config(num_epochs=3)
    train(tiny.make_config(num_epochs=1), tmp_path)
    train_until(6, longer, tmp_path)
    # Otherwise, the next command would take the longer run for complete.
    assert not (tmp_path / "summary.json").exists()
    assert train(longer, tmp_path)["epochs"] == 3
    assert_same_run(tmp_path, straight)


def test_a_run_can_switch_between_one_and_eight_devices(tmp_path, straight):
    for num_epochs, num_devices in ((1, 8), (2, 1), (3, 8)):
        train(tiny.make_config(num_epochs=num_epochs), tmp_path, num_devices=num_devices)
    step, params = params_of(tmp_path)
    assert step == 12
    # If a gradient near zero differs in its last bit, Adam's whole update may differ. An epoch with
    # different random numbers would give a distance of more than 0.05.
    assert tiny.distance(params, params_of(straight)[1]) < 2e-3


def test_a_run_with_pmap_continues_only_on_the_same_number_of_devices(tmp_path):
    for num_epochs in (1, 2):
        config = tiny.make_config(num_epochs=num_epochs, parallel="pmap")
        train(config, tmp_path, num_devices=2)
    longer = tiny.make_config(num_epochs=3, parallel="pmap")
    with pytest.raises(UserError, match="was saved on 2 and cannot continue on 1"):
        train(longer, tmp_path, num_devices=1)
    assert params_of(tmp_path)[0] == 8
    summary = train(config, tmp_path, num_devices=1)  # still complete
    (tmp_path / "predictions.npz").unlink()
    assert train(config, tmp_path, num_devices=1) == summary  # needs no training


def test_a_complete_run_without_checkpoints_is_not_trained_again(tmp_path, capsys):
    config = tiny.make_config()
    summary = train(config, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    assert train(config, tmp_path) == summary and "is complete" in capsys.readouterr().out
    (tmp_path / "predictions.npz").unlink()  # cannot be rebuilt
    assert train(config, tmp_path) == summary
    with pytest.raises(UserError, match="holds another run: seed is 0 there and 1 here"):
        train(tiny.make_config(seed=1), tmp_path)
    with pytest.raises(UserError, match="without its checkpoints, which cannot be continued"):
        train(tiny.make_config(num_epochs=3), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = tiny.make_config(optim__name="sgd", optim__learning_rate=1e-3)
    train(config, tmp_path)
    before = params_of(tmp_path)
    wild = tiny.make_config(num_epochs=3, optim__name="sgd", optim__learning_rate=1e-3)
    # The config describes the same run, but at this learning rate the loss diverges.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.optim.schedules, "create", lambda *a, **k: lambda step: 1e30)
        with pytest.raises(loop.Diverged, match=r"the loss became (nan|inf) in steps \d+ to \d+"):
            train(wild, tmp_path)
    step, params = params_of(tmp_path)
    assert step == before[0] == 8
    jax.tree.map(np.testing.assert_array_equal, params, before[1])
    assert re.match(r"the loss became (nan|inf)", (tmp_path / "diverged.txt").read_text())
    train(wild, tmp_path)  # at the usual learning rate
    assert not (tmp_path / "diverged.txt").exists()


def test_the_epoch_selected_on_the_test_set_is_reported(tmp_path):
    config = tiny.make_config(num_epochs=4, selected_on="test", optim__learning_rate=3e-3)
    summary = train(config, tmp_path)
    accuracies = [float(row["test_accuracy"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert summary["test_accuracy"] == max(accuracies)
    assert summary["best_epoch"] == 1 + int(np.argmax(accuracies))
    assert summary["val_accuracy"] is None and summary["selected_on"] == "test"


@pytest.mark.slow
def test_callbacks_make_the_same_decisions_in_an_interrupted_run(tmp_path):
    config = tiny.make_config(
        num_epochs=9,
        optim__learning_rate=1e-3,
        plateau__monitor="accuracy",
        plateau__patience=2,
        plateau__min_delta=1.0,  # no epoch after the first is an improvement
        early_stopping__monitor="train_loss",
        early_stopping__min_delta=100.0,
        early_stopping__patience=5,
    )
    straight = train(config, tmp_path / "straight")
    rows = read_csv(tmp_path / "straight" / "metrics.csv")
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-5)
    events = [row["events"] for row in rows]
    cut = "learning rate cut to {}: no better accuracy in 2 evaluations"
    stop = "stopped: no better train_loss in 5 evaluations"
    assert events == ["", "", cut.format("0.0001"), "", cut.format("1e-05"), stop]
    assert straight["stopped_early"] and (straight["epochs"], straight["steps"]) == (6, 24)

    # Stop in the third epoch, after one without an improvement, and right after the cut.
    for stop_at in (10, 12):
        train_until(stop_at, config, tmp_path / str(stop_at))
        train(config, tmp_path / str(stop_at))
        assert_same_run(tmp_path / str(stop_at), tmp_path / "straight")
    assert train(config, tmp_path / "straight") == straight  # complete, although epochs are left


@pytest.mark.parametrize("selected_on", ["last", "test"])
def test_the_epoch_at_which_a_callback_stops_training_is_evaluated(tmp_path, selected_on):
    config = tiny.make_config(
        num_epochs=5,
        eval_every_epochs=4,  # no evaluation is due at the epoch at which training stops
        selected_on=selected_on,
        early_stopping__monitor="train_loss",
        early_stopping__min_delta=100.0,
        early_stopping__patience=2,
    )
    summary = train(config, tmp_path / "straight")
    rows = read_csv(tmp_path / "straight" / "metrics.csv")
    assert [bool(row["test_loss"]) for row in rows] == [False, False, True]
    assert summary["best_epoch"] == 3 and summary["stopped_early"]
    train_until(10, config, tmp_path / "resumed")
    train(config, tmp_path / "resumed")
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")


def test_callbacks_ignore_the_evaluation_of_the_last_epoch_if_a_longer_run_would_not_make_it(
    tmp_path,
):
    config = tiny.make_config(
        num_epochs=3,
        eval_every_epochs=2,
        early_stopping__monitor="accuracy",
        early_stopping__min_delta=1.0,  # no evaluation after the first is an improvement
        early_stopping__patience=1,
    )
    train(config, tmp_path)
    rows = read_csv(tmp_path / "metrics.csv")
    assert [bool(row["test_loss"]) for row in rows] == [False, True, True]
    assert [row["events"] for row in rows] == ["", "", ""]


def test_the_curves_hold_the_learning_rate_of_the_last_step_of_each_epoch(tmp_path):
    train(tiny.make_config(optim__schedule="step", optim__step_epochs=(1,)), tmp_path)
    rates = [float(row["learning_rate"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert rates == pytest.approx([1e-3, 1e-4])


def test_a_run_that_continues_elsewhere_says_where_it_was_trained_before(tmp_path, monkeypatch):
    config, environment = tiny.make_config(steps_per_call=1), training.environment
    train_until(3, config, tmp_path)
    here = environment()
    elsewhere = here | {"git_commit": "another"}
    monkeypatch.setattr(training, "environment", lambda: elsewhere)
    summary = train(config, tmp_path)
    assert summary["git_commit"] == "another" and summary["earlier_environments"] == [here]
    (tmp_path / "summary.json").unlink()
    monkeypatch.setattr(training, "environment", lambda: here | {"git_commit": "a third"})
    rebuilt = train(config, tmp_path)  # without training
    for field in ("git_commit", "earlier_environments"):
        assert rebuilt[field] == summary[field]
    # The checkpoint was saved at step 3 or 4 of 8, and the first call warms up.
    meta = latest_meta(tmp_path)
    assert 3 <= len(meta["step_times"]) <= 4 and meta["environments"] == [here, elsewhere]


def latest_meta(workdir):
    with checkpoint.open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.read_meta(checkpoints.latest_step)


def test_the_time_before_an_interruption_counts(tmp_path, monkeypatch):
    config, wait = tiny.make_config(), clock.Clock.wait

    def wait_long(self, call):
        self.seconds += 1000.0
        return wait(self, call)

    with monkeypatch.context() as patch:
        patch.setattr(clock.Clock, "wait", wait_long)
        train_until(6, config, tmp_path)  # after two or three of the second epoch's four steps
    train(config, tmp_path)
    first, second = (float(row["seconds"]) for row in read_csv(tmp_path / "metrics.csv"))
    assert 4000 < first < 4100 and 2000 < second < 3100


def test_the_best_epoch_before_a_stop_is_restored_in_an_interrupted_run(tmp_path):
    config = tiny.make_config(
        num_epochs=9,
        seed=6,  # with this seed, the best epoch is not the last one
        selected_on="train",
        optim__learning_rate=1e-2,
        early_stopping__monitor="accuracy",
        early_stopping__min_delta=1.0,
        early_stopping__patience=5,
    )
    summary = train(config, tmp_path / "straight")
    rows = read_csv(tmp_path / "straight" / "metrics.csv")
    best = int(np.argmax([float(row["train_accuracy"]) for row in rows]))
    assert len(rows) == 6 and summary["best_epoch"] == best + 1 < 6
    assert summary["train_accuracy"] == float(rows[best]["train_accuracy"])
    assert summary["test_accuracy"] == pytest.approx(float(rows[best]["test_accuracy"]), rel=1e-6)
    train_until(22, config, tmp_path / "resumed")
    train(config, tmp_path / "resumed")
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")


def test_the_reported_epoch_may_be_that_with_the_lowest_loss(tmp_path):
    # At this learning rate the loss falls until the end, but the accuracy stops rising earlier.
    config = tiny.make_config(
        num_epochs=7, selected_on="test", selected_by="loss", optim__learning_rate=1e-2
    )
    summary = train(config, tmp_path)
    losses = [float(row["test_loss"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert summary["best_epoch"] == 1 + int(np.argmin(losses))
    assert summary["test_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_a_network_with_another_number_of_logits_is_refused(tmp_path, monkeypatch):
    create = models.create
    monkeypatch.setattr(models, "create", lambda name, _, *a, **k: create(name, 7, *a, **k))
    message = r"the network cnn2 returns \(32, 7\) for 32 images of 10 classes, not logits of shape"
    with pytest.raises(UserError, match=message):
        train(tiny.make_config(eval_batch_size=8), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_runs_workdir_is_refused(straight):
    with pytest.raises(UserError, match="holds another run: seed is 0 there and 1 here"):
        train(tiny.make_config(num_epochs=3, seed=1), straight)
    cosine = tiny.make_config(num_epochs=5, optim__schedule="cosine")
    with pytest.raises(UserError, match="num_epochs is 3 there and 5 here"):
        train(cosine, straight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(batch_size=101), "1 to 100, the number of training images, got 101"),
        (dict(model__name="cnn33"), "unknown model 'cnn33'; did you mean 'cnn3'"),
        (dict(selected_on="val"), "needs data.val_fraction above 0"),
        (
            dict(optim__sam_rho=0.05, transfer__unfreeze_epochs=(0, 1)),
            "optim.sam_rho and transfer.unfreeze_epochs cannot be combined",
        ),
        (dict(selected_on="best"), "unknown selected_on 'best'"),
        (dict(selected_by="acuracy"), "unknown selected_by 'acuracy'; did you mean 'accuracy'"),
        (dict(plateau__patience=2, plateau__factor=2.0), "plateau.factor must be .* got 2.0"),
        (dict(early_stopping__patience=-1), "early_stopping.patience must be .* got -1"),
        (dict(num_epochs=0), "num_epochs must be at least 1, got 0"),
        (dict(dtype="float16"), "unknown dtype 'float16'"),
        (dict(checkpoint__every_minutes=-1.0), "every_minutes must be at least 0, got -1.0"),
        (dict(checkpoint__every_minutes=math.nan), "every_minutes must be a number, got nan"),
        (dict(plateau__min_learning_rate=math.nan), "learning_rate must be a number, got nan"),
        (dict(optim__clip_norm=math.inf), "optim.clip_norm must be a number, got inf"),
        (dict(trackers=","), "trackers must be names separated by commas.* got ','"),
        (dict(num_epochs=2**31 - 1), "num_epochs must be at most 536870911"),
        (dict(batch_size=2**40), r"batch_size must be below 2\*\*31, got 1099511627776"),
        (dict(optim__name="adamm"), "did you mean 'adam'"),
        (dict(optim__schedule="cosin"), "did you mean 'cosine'"),
        (dict(augment__ops="flop"), "did you mean 'flip'"),
        (dict(label_smoothing=1.0), "label_smoothing must be in"),
        (dict(steps_per_call=-1), "steps_per_call must be at least 0"),
        (dict(parallel="pmpa"), "did you mean 'pmap'"),
        (dict(data__val_seed=-1), "data.val_seed must be from 0 to"),
        (dict(data__name="mnist"), "unknown data.name 'mnist'"),
        (dict(data__val_fraction=1.5), "data.val_fraction must be in"),
        (dict(augment__ops="crop(-1)"), "crop needs a whole number"),
        (dict(optim__warmup_epochs=5.0), "warmup_epochs must be less than num_epochs = 2"),
        (dict(optim__schedule="step"), "needs optim.step_epochs"),
        (dict(model__dropout=(0.5, 0.5)), "dropout must be one number or 3"),
    ],
)
def test_invalid_configs_are_refused_before_anything_is_written(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(tiny.make_config(**overrides), tmp_path / "run")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_train_loss_is_the_mean_over_all_examples(tmp_path):
    """With a learning rate of almost zero, training and evaluation must measure the same loss.

    The last batch of the 100 images is a partial one, of 4 images.
    """
    dataset = tiny.dataset()
    config = tiny.make_config(
        num_epochs=1, optim__learning_rate=1e-30, model__dropout=(0.0,), augment__ops=""
    )
    train(config, tmp_path, dataset=dataset._replace(test=dataset.train))
    (row,) = read_csv(tmp_path / "metrics.csv")
    for name in ("loss", "accuracy", "top5_accuracy"):
        assert float(row[f"train_{name}"]) == pytest.approx(float(row[f"test_{name}"]), rel=1e-5)


def test_an_evaluation_is_queued_once_behind_the_last_call_of_an_epoch(tmp_path, monkeypatch):
    """The first one is not: compiling its program would count as training time."""
    order, create, wait = [], experiment.create, clock.Clock.wait

    def create_recording(*args, **kwargs):
        exp = create(*args, **kwargs)
        evaluate = exp.evaluate["test"]
        record = lambda state: order.append(int(state.step)) or evaluate(state)  # noqa: E731
        return exp._replace(evaluate={"test": record})

    monkeypatch.setattr(experiment, "create", create_recording)
    monkeypatch.setattr(clock.Clock, "wait", lambda c, call: order.append("fetch") or wait(c, call))
    train(tiny.make_config(num_epochs=3, steps_per_call=3), tmp_path)
    # Three epochs of 4 steps, in calls of 3 and 1, and the final evaluation.
    assert order == ["fetch", "fetch", 4, 8, "fetch", "fetch", 12, "fetch", "fetch", 12]


def test_a_state_that_fails_in_evaluation_is_not_saved(tmp_path, monkeypatch):
    """The training loss is computed before the update, which may make the parameters infinite."""
    create = experiment.optim.schedules.create

    def blow_up_at_the_end_of_epoch_2(*args, **kwargs):
        schedule = create(*args, **kwargs)
        return lambda step: jax.numpy.where(step == 7, 1e30, schedule(step))

    monkeypatch.setattr(experiment.optim.schedules, "create", blow_up_at_the_end_of_epoch_2)
    with pytest.raises(loop.Diverged, match=r"test loss became nan by epoch 2|infinite by step 8"):
        train(tiny.make_config(num_epochs=3), tmp_path)
    assert params_of(tmp_path)[0] == 4


def test_damaged_metrics_of_a_complete_run_are_rebuilt(tmp_path, capsys):
    config, path = tiny.make_config(num_epochs=2), tmp_path / "metrics.csv"
    summary = train(config, tmp_path)
    content = path.read_text()
    lines = content.splitlines(keepends=True)
    for damaged in ("", "".join(lines[:2]), content[:-9] + "\n", content.replace(",", ";")):
        path.write_text(damaged)
        assert train(config, tmp_path) == summary
        assert f"{path}" in (printed := capsys.readouterr().out) and "rebuilding" in printed
        assert path.read_text() == content
    assert train(config, tmp_path) == summary
    assert "rebuilding" not in capsys.readouterr().out


def test_a_run_that_fails_to_start_does_not_claim_the_workdir(tmp_path):
    too_small = tiny.dataset(num_train=8)
    with pytest.raises(UserError, match="batch_size must be from 1 to 8"):
        train(tiny.make_config(seed=1), tmp_path, dataset=too_small)
    train(tiny.make_config(num_epochs=1), tmp_path)
    before = (tmp_path / "summary.json").read_text()
    with pytest.raises(UserError, match="batch_size must be from 1 to 8"):
        train(tiny.make_config(num_epochs=3), tmp_path, dataset=too_small)
    assert (tmp_path / "summary.json").read_text() == before


def test_messages_name_corrupt_files(tmp_path):
    config = tiny.make_config(num_epochs=1)
    summary = train(config, tmp_path)
    (tmp_path / "summary.json").write_text("{")
    again = train(config, tmp_path)  # from the checkpoint
    assert again["test_accuracy"] == summary["test_accuracy"]

    (tmp_path / "summary.json").unlink()
    for path in (tmp_path / "checkpoints" / "4").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"the checkpoint .*checkpoints/4 cannot be read"):
        train(config, tmp_path)

    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"no readable config\.json"):
        train(config, tmp_path)


def test_two_processes_do_not_share_a_workdir(tmp_path):
    with (
        workdir.locked(tmp_path),
        pytest.raises(UserError, match="another process is using"),
    ):
        train(tiny.make_config(), tmp_path)


def test_a_checkpoint_holds_no_later_rows(tmp_path, monkeypatch):
    """The JSON of a checkpoint is written in the background while training continues."""
    seen = []
    save = checkpoint.Checkpoints.save

    def spy(self, step, state, meta, score=None):
        seen.append((step, meta))
        save(self, step, state, meta, score)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", spy)
    train(tiny.make_config(num_epochs=3), tmp_path)
    assert [(step, len(meta["rows"])) for step, meta in seen] == [(4, 1), (8, 2), (12, 3)]


def test_checkpoints_are_also_saved_after_a_number_of_minutes(tmp_path, monkeypatch):
    saved = []
    save = checkpoint.Checkpoints.save
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "save",
        lambda self, step, *args: (saved.append(step), save(self, step, *args)),
    )
    config = dict(num_epochs=2, checkpoint__every_epochs=100, checkpoint__every_minutes=0.0)
    train(tiny.make_config(**config, steps_per_call=4), tmp_path / "whole")
    assert saved == [4, 8]
    saved.clear()
    train(tiny.make_config(**config, steps_per_call=3), tmp_path / "parts")
    assert saved == [3, 4, 7, 8]


def test_evaluation_every_second_epoch_survives_an_extension(tmp_path):
    options = dict(eval_every_epochs=2)
    train(tiny.make_config(num_epochs=3, **options), tmp_path)
    train(tiny.make_config(num_epochs=4, **options), tmp_path)
    accuracies = [row["test_accuracy"] for row in read_csv(tmp_path / "metrics.csv")]
    assert [bool(a) for a in accuracies] == [False, True, False, True]


@pytest.mark.slow
def test_a_resumed_pmap_run_is_bitwise_equal(tmp_path):
    thin = ConfigDict({"name": "resnet18", "width": 4, "depths": (1, 1)})
    options = dict(parallel="pmap", model=thin)
    for num_epochs, name in ((2, "straight"), (1, "resumed"), (2, "resumed")):
        config = tiny.make_config(num_epochs=num_epochs, **options)
        train(config, tmp_path / name, num_devices=4)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_bfloat16_trains(tmp_path):
    summary = train(tiny.make_config(num_epochs=3, dtype="bfloat16"), tmp_path)
    assert summary["dtype"] == "bfloat16" and summary["test_accuracy"] > 0.3
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(params_of(tmp_path)[1])}
    assert dtypes == {"float32"}
