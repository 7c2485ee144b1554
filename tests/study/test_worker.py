import os
import signal

import pytest
import searching
import tiny
from ml_collections import ConfigDict
from searching import QUICK

from cifar_jax.errors import UserError
from cifar_jax.loop import Diverged
from cifar_jax.runtime.signals import Preempted
from cifar_jax.study import ownership, queue, result, worker

optuna = pytest.importorskip("optuna")


def accuracy(config, epoch):
    """Is best in the middle epoch, and near a learning rate of 0.01."""
    return 0.5 - abs(config.optim.learning_rate - 0.01) - 0.01 * abs(epoch - 2)


@pytest.mark.parametrize("selected_by", ["accuracy", "loss"])
def test_a_search_reports_the_metric_of_the_reported_epoch(tmp_path, monkeypatch, selected_by):
    searching.simulate(monkeypatch, accuracy)
    config = searching.make_config(num_epochs=3, selected_by=selected_by)
    search, console = searching.run(config, tmp_path)
    assert searching.states(search) == ["COMPLETE"] * 3
    for trial, (number, values, outcome) in zip(search.trials, console.ended, strict=True):
        assert trial.number == number and search.values(trial) == values
        peak = 0.5 - abs(values["optim.learning_rate"] - 0.01)
        expected = peak if selected_by == "accuracy" else peak - 1
        assert trial.value == outcome.value == pytest.approx(expected)
        assert trial.user_attrs == {"epochs": 3, "seconds": 6.0, "error": ""}
        assert trial.intermediate_values.keys() == {1, 2, 3}
    best = result.best_of(search.trials)
    rates = [search.values(t)["optim.learning_rate"] for t in search.trials]
    assert search.values(best)["optim.learning_rate"] == min(rates, key=lambda r: abs(r - 0.01))


def test_random_sampling_does_not_depend_on_interruptions(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, accuracy)
    config = searching.make_config(search__num_trials=4)
    straight, _ = searching.run(config, tmp_path / "straight")
    for count in (1, 3, 4):
        config.search.num_trials = count
        pieces, _ = searching.run(config, tmp_path / "pieces")
    values = [[search.values(t) for t in search.trials] for search in (straight, pieces)]
    assert values[0] == values[1] and len(values[0]) == 4


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_are_pruned_after_min_epochs(tmp_path, monkeypatch, pruner):
    searching.simulate(monkeypatch, lambda config, epoch: config.optim.learning_rate * epoch)
    config = searching.make_config(
        num_epochs=9, search__num_trials=20, search__pruner=pruner, search__min_epochs=2
    )
    search, _ = searching.run(config, tmp_path)
    pruned = [t for t in search.trials if t.state.name == "PRUNED"]
    assert 3 < len(pruned) < 18
    assert {t.user_attrs["epochs"] for t in pruned} <= set(range(2, 9))
    assert all(t.value == t.intermediate_values[t.user_attrs["epochs"]] for t in pruned)
    best = result.best_of(search.trials)
    assert best.value == max(t.value for t in search.trials if t.value is not None)


def test_a_trial_is_never_pruned_at_its_last_epoch(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, lambda config, epoch: config.optim.learning_rate)
    config = searching.make_config(search__num_trials=9, search__pruner="median", num_epochs=1)
    search, _ = searching.run(config, tmp_path)
    assert searching.states(search) == ["COMPLETE"] * 9


def test_a_trial_that_diverges_is_pruned_and_the_search_continues(tmp_path, monkeypatch):
    def diverge(config, epoch):
        if config.seed > 4 and epoch == 2:
            raise Diverged("the loss became nan in steps 3 to 4")

    searching.simulate(monkeypatch, accuracy, diverge)
    search, _ = searching.run(
        searching.make_config("seed in int(0, 9)", search__num_trials=6), tmp_path
    )
    for t in search.trials:
        has_diverged = search.values(t)["seed"] > 4
        assert t.state.name == ("PRUNED" if has_diverged else "COMPLETE")
        assert t.user_attrs["error"] == "the loss became nan in steps 3 to 4" * has_diverged
        assert t.user_attrs["epochs"] == (1 if has_diverged else 2)
    assert {t.state.name for t in search.trials} == {"PRUNED", "COMPLETE"}


def test_values_that_do_not_fit_together_fail_their_trial(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, accuracy)
    space = "optim.warmup_epochs in {0.5, 1.5}; num_epochs in {1, 2}"  # 1.5 of 1 epoch is too long
    search, console = searching.run(searching.make_config(space, search__num_trials=6), tmp_path)
    for t, (_, values, outcome) in zip(search.trials, console.ended, strict=True):
        is_valid = values["optim.warmup_epochs"] < values["num_epochs"]
        assert t.state.name == ("COMPLETE" if is_valid else "FAIL")
        assert ("warmup_epochs" in t.user_attrs["error"]) != is_valid
        assert outcome.error == t.user_attrs["error"]
    assert {t.state.name for t in search.trials} == {"FAIL", "COMPLETE"}


def test_other_errors_stop_the_worker_and_keep_the_trial(tmp_path, monkeypatch):
    """Such as a full disk: every other trial would fail too."""

    def fail(config, epoch):
        raise UserError("the disk is full")

    searching.simulate(monkeypatch, accuracy, fail)
    with pytest.raises(UserError, match="the disk is full"):
        searching.run(searching.make_config(), tmp_path)
    searching.simulate(monkeypatch, accuracy)
    search, console = searching.run(searching.make_config(), tmp_path)
    assert [number for number, *_ in console.ended] == [0, 1, 2]
    assert searching.states(search) == ["COMPLETE"] * 3


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_leaves_the_trial_to_the_next_worker(tmp_path, monkeypatch):
    def interrupt(config, epoch):
        if epoch == 2:
            raise Preempted(signal.SIGINT, "saved")

    searching.simulate(monkeypatch, accuracy, interrupt)
    with pytest.raises(Preempted, match=r"trial 0 is kept\. The same command continues") as stopped:
        searching.run(searching.make_config(), tmp_path, timing=ownership.DEFAULT)
    assert stopped.value.exit_code == 130
    searching.simulate(monkeypatch, accuracy)
    search, console = searching.run(
        searching.make_config(), tmp_path, timing=ownership.DEFAULT._replace(interval=100)
    )
    assert [number for number, *_ in console.ended] == [0, 1, 2]
    assert searching.states(search) == ["COMPLETE"] * 3


@pytest.mark.usefixtures("default_signals")
def test_a_signal_while_the_program_is_compiled_stops_before_the_first_epoch(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, accuracy)
    begin = searching.Console.begin
    monkeypatch.setattr(
        searching.Console,
        "begin",
        lambda *args: (begin(*args), os.kill(os.getpid(), signal.SIGTERM)),
    )
    with pytest.raises(Preempted) as stopped:
        searching.run(searching.make_config(), tmp_path)
    assert stopped.value.exit_code == 143
    assert not list(tmp_path.glob("trials/*/metrics.csv"))


def test_a_worker_that_lost_its_trial_does_not_report_it(tmp_path, monkeypatch):
    taken = []

    def take(config, epoch):
        if not taken and epoch == 2:
            (tmp_path / "trials/0/.owner.1").touch()
            taken.append(config)

    searching.simulate(monkeypatch, accuracy, take)
    monkeypatch.setattr(ownership, "is_at_work", lambda folder: False)
    config = searching.make_config(search__num_trials=2)
    search, console = searching.run(config, tmp_path)
    # It continues with the next trial, and returns to the lost one when its new owner is silent.
    assert console.lost == [0]
    assert [number for number, *_ in console.ended] == [1, 0]
    # It stops at the epoch in which it lost the trial.
    assert [epoch for epoch, _ in console.epochs] == [1, 1, 2, 1, 2]
    assert search.trials[0].intermediate_values.keys() == {1, 2}


def test_epochs_that_are_trained_again_are_not_reported_again(tmp_path, monkeypatch, recwarn):
    """The worker was killed after it had reported an epoch, before it saved that epoch."""
    searching.simulate(monkeypatch, accuracy)
    config = searching.make_config(search__num_trials=1, num_epochs=3)
    search = worker.open_search(config, tmp_path, None)
    trial, owner = queue.next_trial(search.study, 1, tmp_path, QUICK)
    for epoch in (1, 2):
        trial.report(0.25, epoch)
    owner.close(abandons=True)
    search, _ = searching.run(config, tmp_path)
    reported = search.trials[0].intermediate_values
    assert reported.keys() == {1, 2, 3}
    assert not [w for w in recwarn if "already reported" in str(w.message)]


def test_a_continued_trial_is_pruned_at_its_newest_epoch(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, accuracy)
    config = searching.make_config(search__num_trials=1, search__pruner="median", num_epochs=4)
    search = worker.open_search(config, tmp_path, None)
    trial, owner = queue.next_trial(search.study, 1, tmp_path, QUICK)
    for epoch in (1, 2):
        trial.report(0.25, epoch)
    owner.close(abandons=True)
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: True)
    search, console = searching.run(config, tmp_path)
    assert searching.states(search) == ["PRUNED"]
    assert [epoch for epoch, _ in console.epochs] == [1, 2]  # 1 is older than the newest, 2


def test_missing_weights_end_the_search_before_its_first_trial(tmp_path):
    config = searching.make_config(
        "seed in {0, 1}",
        transfer__weights=str(tmp_path / "missing.h5"),
        model=ConfigDict(tiny.SPLIT_NETWORK),
    )
    with pytest.raises(UserError, match=r"missing\.h5 does not exist"):
        worker.open_search(config, tmp_path / "w", None)
    assert not (tmp_path / "w" / "trials").exists()


def test_the_study_can_be_in_a_database(tmp_path, monkeypatch):
    searching.simulate(monkeypatch, accuracy)
    url = f"sqlite:///{tmp_path}/study.db"
    config = searching.make_config()
    search, _ = searching.run(config, tmp_path / "w", storage=url)
    assert searching.states(search) == ["COMPLETE"] * 3
    assert not (tmp_path / "w" / "search.journal").exists()
    (name,) = optuna.get_all_study_names(url)
    assert name.startswith("quickstart-")
    with pytest.raises(UserError, match="holds a search with --storage sqlite:"):
        searching.run(config, tmp_path / "w")


def test_the_checkpoints_of_pruned_trials_are_deleted(tmp_path, monkeypatch):
    def save(config, epoch):
        number = len(list(tmp_path.glob("trials/*"))) - 1
        (tmp_path / f"trials/{number}/checkpoints/1").mkdir(parents=True, exist_ok=True)

    searching.simulate(monkeypatch, lambda config, epoch: config.seed / 1000, save)
    monkeypatch.setattr("cifar_jax.experiment.check_weights", lambda config: None)
    config = searching.make_config(
        "seed in int(0, 1000)", search__pruner="median", search__num_trials=9
    )
    search, _ = searching.run(config, tmp_path)
    for t in search.trials:
        kept = (tmp_path / f"trials/{t.number}/checkpoints").exists()
        assert kept == (t.state.name == "COMPLETE")
    assert "PRUNED" in searching.states(search)
