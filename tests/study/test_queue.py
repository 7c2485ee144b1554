import threading

import pytest
import searching

from cifar_jax.study import ownership, queue
from cifar_jax.study.ownership import Timing
from cifar_jax.study.worker import open_search

optuna = pytest.importorskip("optuna")

PATIENT = Timing(interval=100, timeout=100)
RUNNING, COMPLETE = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.COMPLETE


@pytest.fixture
def config():
    return searching.make_config()


def next_trial(search, timing=PATIENT):
    return queue.next_trial(search.study, search.num_trials, search.workdir, timing)


def test_never_more_trials_than_asked_for(config, tmp_path):
    """Eight workers ask for five trials at the same time."""
    config.search.num_trials = 5
    searches = [open_search(config, tmp_path / "w", None) for _ in range(8)]
    barrier, taken = threading.Barrier(8), []

    def work(search):
        barrier.wait()
        while found := next_trial(search):
            taken.append(found[0].number)
            found[1].close(abandons=False)

    threads = [threading.Thread(target=work, args=(search,)) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [0, 1, 2, 3, 4]
    assert [t.number for t in searches[0].trials] == [0, 1, 2, 3, 4]
    assert sorted(p.name for p in (tmp_path / "w/trials").iterdir()) == [*"01234"]


def test_a_trial_too_many_does_not_count(config, tmp_path, monkeypatch):
    """Another worker asks for the last trial between this one's look and its own request."""
    config.search.num_trials = 2
    search = open_search(config, tmp_path, None)
    next_trial(search)[1].close(abandons=False)
    ask = search.study.ask

    def ask_late():
        monkeypatch.setattr(search.study, "ask", ask)
        assert next_trial(open_search(config, tmp_path, None))[0].number == 1
        return ask()

    monkeypatch.setattr(search.study, "ask", ask_late)
    assert next_trial(search) is None
    assert searching.states(search) == ["RUNNING", "RUNNING", "FAIL"]
    assert [t.number for t in search.trials] == [0, 1]
    assert sorted(p.name for p in (tmp_path / "trials").iterdir()) == ["0", "1"]
    config.search.num_trials = 3  # continues after the number that does not count
    assert next_trial(open_search(config, tmp_path, None))[0].number == 3


def test_a_left_trial_comes_before_a_new_one(config, tmp_path):
    search = open_search(config, tmp_path, None)
    first, owner = next_trial(search)
    owner.close(abandons=True)
    again, owner = next_trial(search)
    assert again.number == first.number == 0
    assert next_trial(search)[0].number == 1  # the first one has an owner
    owner.close(abandons=True)
    search.study.tell(first, 0.5)
    assert next_trial(search)[0].number == 2  # a finished one needs none


def test_a_trial_without_an_owner_is_taken(config, tmp_path):
    """Its worker was killed right after it had asked for it."""
    search = open_search(config, tmp_path, None)
    search.study.ask()
    trial, owner = next_trial(search)
    assert trial.number == 0 and owner.is_current()


def test_a_trial_that_is_finished_while_it_is_taken_is_left_alone(config, tmp_path, monkeypatch):
    search = open_search(config, tmp_path, None)
    first, owner = next_trial(search)
    owner.close(abandons=True)
    claim = ownership.claim

    def claim_late(folder, timing):
        monkeypatch.setattr(ownership, "claim", claim)
        search.study.tell(first, 0.5)
        return claim(folder, timing)

    monkeypatch.setattr(ownership, "claim", claim_late)
    assert next_trial(search)[0].number == 1
