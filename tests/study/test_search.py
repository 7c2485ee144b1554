"""The command, with real training of a tiny network."""

import json
import re
import shlex
import signal
import sys

import jax
import pytest
import searching
import tiny

from cifar_jax import engine, experiment, main, search
from cifar_jax.errors import UserError
from cifar_jax.run import config_json
from cifar_jax.study import ownership, worker

FILE = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.model.name = "cnn2"
    config.model.filters = (4, 8)
    config.model.dense_units = 32
    config.batch_size = 32
    config.eval_batch_size = 16
    config.num_epochs = 2
    config.search.space = "optim.learning_rate in log(1e-3, 1e-2); augment.ops in {'', 'flip'}"
    config.search.num_trials = 3
    config.search.min_epochs = 1
    return config
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, default_signals):
    """Returns a function that runs a command; it returns the exit code and the output."""
    path = tmp_path / "small.py"
    path.write_text(FILE)
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(engine, "make_mesh", lambda devices=None: mesh)
    monkeypatch.setattr(experiment, "make_mesh", lambda devices=None: mesh)
    monkeypatch.setattr("cifar_jax.experiment.data.load", tiny.load)
    monkeypatch.setattr(ownership, "DEFAULT", searching.QUICK)

    def run(*flags, module=search):
        code = module.main(["", "--config", str(path), "--workdir", str(tmp_path / "w"), *flags])
        return code, capsys.readouterr()

    return run


@pytest.mark.usefixtures("blank_figures", "library_convolutions")
def test_the_printed_command_trains_the_winner(command, tmp_path, monkeypatch, capsys):
    code, shown = command("--config.seed=7", "--config.optim.name=adamw")
    assert code == 0 and shown.err == ""
    lines = shown.out.splitlines()
    assert [re.match(r"trial \d +complete +\d+\.\d\d%", line) is not None for line in lines[:3]]
    assert sorted(line.split()[1] for line in lines[:3]) == ["0", "1", "2"]
    best = int(re.search(r"best trial +(\d)", shown.out)[1])
    printed = re.search(r"train the winner with +(.*)", shown.out)[1]
    words = shlex.split(printed)
    assert words[:3] == ["python", "-m", "cifar_jax.main"]
    monkeypatch.setattr(main, "_draw", lambda workdir: None)
    assert main.main(words[2:]) == 0
    capsys.readouterr()
    trained, trial = (
        config_json.read(tmp_path / "w" / name) for name in ("best", f"trials/{best}")
    )
    assert trained["optim"] == trial["optim"] and trained["augment"] == trial["augment"]
    assert trained["seed"] == 7 and trained["optim"]["name"] == "adamw"
    # On all images, while the trial held out a tenth.
    assert (trained["data"]["val_fraction"], trained["selected_on"]) == (0.0, "last")
    assert (trial["data"]["val_fraction"], trial["selected_on"]) == (0.1, "val")

    # The same command shows the same result; with more trials, it continues.
    code, again = command("--config.seed=7", "--config.optim.name=adamw")
    assert code == 0 and again.out == "\n".join(lines[3:]) + "\n"
    code, more = command("--config.seed=7", "--config.optim.name=adamw", "--trials", "4")
    assert code == 0 and more.out.startswith("trial 3 ")
    page = (tmp_path / "w" / "search.html").read_text()
    titles = ["History", "Importances", "Parallel coordinates", "optim.learning_rate"]
    assert [title in re.findall("<h3>(.*?)</h3>", page) for title in titles] == [True] * 4
    assert page.count("<svg") == 5 and page.count('href="trials/') == 4
    assert 'class="sortable"' in page and "http" not in re.sub(r"http://www\.w3\.org\S*", "", page)

    # A workdir holds either a search or a training run.
    assert "holds a hyperparameter search" in command(module=main)[1].err
    monkeypatch.chdir(tmp_path)
    code = search.main(["", "--config", "small.py", "--workdir", str(tmp_path / "w/best")])
    assert code == 1


@pytest.mark.usefixtures("blank_figures", "library_convolutions")
def test_interrupted_training_continues_where_it_stopped(command, tmp_path, monkeypatch):
    class Interrupting(worker.trial.TrialWriter):
        def epoch(self, row):
            super().epoch(row)
            if row["epoch"] == 1:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(worker.trial, "TrialWriter", Interrupting)
        code, shown = command()
    assert code == 130
    assert shown.out == (
        "stopped as requested; trial 0 is kept. The same command continues the search\n"
    )
    code, shown = command()
    assert code == 0
    log = (tmp_path / "w/trials/0/log.txt").read_text()
    assert "resumed at step 4 of 8" in log and "epoch 2/2" in log
    assert shown.out.startswith("trial 0 ") and "trial 2 " in shown.out


@pytest.mark.usefixtures("blank_figures", "library_convolutions")
def test_trials_that_differ_in_learning_rates_and_seed_compile_one_program(command, monkeypatch):
    compiled = []
    compile_for_backend = engine.compile_for_backend
    monkeypatch.setattr(
        engine,
        "compile_for_backend",
        lambda *args: compiled.append(1) or compile_for_backend(*args),
    )
    space = "optim.learning_rate in log(1e-4, 1e-2); seed in int(0, 9); optim.schedule in "
    space += "{'constant', 'cosine'}; batch_size in {16, 32}"
    code, shown = command(f"--config.search.space={space}", "--trials=5")
    assert code == 0 and len(re.findall("^trial", shown.out, re.MULTILINE)) == 5
    assert len(set(re.findall(r"batch_size=(\d+)", shown.out))) == len(compiled) == 2


def test_if_all_trials_fail_the_first_message_is_shown(command, tmp_path):
    flags = ("--config.num_epochs=1", "--config.search.space=batch_size in {101, 102, 103}")
    code, shown = command(*flags)
    assert code == 1 and len(re.findall("^trial . +failed", shown.out, re.MULTILINE)) == 3
    assert shown.err.startswith("error: no trial is complete: batch_size must be from 1 to 100")
    assert "No trial is complete" in (tmp_path / "w/search.html").read_text()
    assert command(*flags)[0] == 1


def test_a_search_is_identified_by_its_config(command, tmp_path):
    space = "--config.search.space=batch_size in {101, 102}"
    command(space, "--trials=1")
    for flags, message in (
        ((), "search.space is"),
        ((space, "--config.optim.name=sgd"), "optim.name is 'adam' there and 'sgd' here"),
        ((space, "--config.num_epochs=3"), "num_epochs is 2 there and 3 here"),
        ((space, "--config.search.sampler=random"), "search.sampler is 'tpe' there"),
        ((space, "--config.search.pruner=none"), "search.pruner is"),
        ((space, "--storage=sqlite:////x.db"), "holds a search with --storage in the workdir"),
    ):
        code, shown = command(*flags)
        assert code == 1 and message in shown.err and "hoose another" in shown.err
    assert command(space, "--trials=2", "--config.trackers=")[0] == 1  # all trials failed
    assert len(list((tmp_path / "w/trials").iterdir())) == 2
    saved = json.loads((tmp_path / "w/search.json").read_text())
    assert saved["config"]["search"]["num_trials"] == 1
    # A version that lacked an option of the network may have started the search.
    del saved["config"]["model"]["dropout"], saved["config"]["gpu_graph"]
    (tmp_path / "w/search.json").write_text(json.dumps(saved))
    assert command(space, "--trials=2")[1].err.startswith("error: no trial is complete")


def test_a_search_over_networks_of_an_older_version_is_refused(command, tmp_path):
    space = "--config.search.space=model.name in {'cnn2', 'cnn_small'}; batch_size in {101, 102}"
    command(space, "--trials=1")
    saved = json.loads((tmp_path / "w/search.json").read_text())
    assert saved.pop("version") == 2
    (tmp_path / "w/search.json").write_text(json.dumps(saved))
    code, shown = command(space)
    assert code == 1 and "that an older version of cifar_jax began" in shown.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.search.space=",), "search.space is empty: set it in the config or by --con"),
        (("--config.search.space=batch_sise in {1, 2}",), "did you mean 'batch_size'"),
        (("--config.search.space=batch_size in int(4, 4)",), "an empty range"),
        (("--config.search.space=batch_size in {'x'}",), "batch_size must be a whole number"),
        (("--config.data.val_fraction=0", "--config.selected_on=last"), "a search compares trials"),
        (("--config.selected_on=train",), "selected_on must be 'val' or 'last' in a search"),
        (("--config.search.sampler=tpa",), "unknown search.sampler 'tpa'; did you mean 'tpe'"),
        (("--config.search.pruner=medain",), "did you mean 'median'"),
        (("--config.search.min_epochs=3",), "from 1 to num_epochs, which is 2, got 3"),
        (("--config.search.val_fraction=1.0",), "search.val_fraction must be in [0, 1)"),
        (("--trials=0",), "search.num_trials must be at least 1, got 0"),
        (("--trials=many",), "--trials needs a whole number, got 'many'"),
        (("--config.optim.name=adamm",), "did you mean 'adam'"),
        (("--workdir=/dev/null/x",), "--workdir /dev/null/x cannot be used: Not a directory"),
        (("--storage=nonsense",), "--storage nonsense cannot be used: ArgumentError"),
        (("--storage=sqlite:////nowhere/x.db",), "cannot be used: OperationalError"),
        (("--storage=foo://u:secret@h/x",), "--storage foo://u:***@h/x cannot be used"),
        (("--storage=redis://localhost:1",), "cannot be used: ValueError"),
        (("--storage=",), "--storage is empty"),
    ],
)
def test_bad_inputs(command, tmp_path, flags, message):
    code, shown = command(*flags)
    assert code == 1 and message in shown.err, shown.err
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and not shown.out
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", ["notes.md", "config.json", "checkpoints"])
def test_a_folder_with_other_files_is_refused(command, tmp_path, name):
    (tmp_path / "w" / name).mkdir(parents=True)
    code, shown = command()
    assert code == 1 and re.search("holds files that do not|holds a training run", shown.err)
    assert not (tmp_path / "w" / "search.json").exists()


def test_a_damaged_journal_is_named(command, tmp_path):
    space = "--config.search.space=batch_size in {101, 102}"
    command(space, "--trials=1")
    (tmp_path / "w/search.journal").write_text("no JSON\n{}\n")
    code, shown = command(space)
    assert code == 1 and "the search's journal cannot be used" in shown.err


def test_a_damaged_search_json_is_named(command, tmp_path):
    (tmp_path / "w").mkdir()
    for text in ("{", "[]", "{}", '{"study": "x"}', '{"study": "x", "config": 3}'):
        (tmp_path / "w/search.json").write_text(text)
        code, shown = command()
        assert code == 1 and "search.json" in shown.err and shown.err.count("\n") == 1


def test_the_missing_package_is_named(command, monkeypatch):
    for name in [m for m in sys.modules if m.startswith(("cifar_jax.study", "optuna"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delattr("cifar_jax.study", raising=False)
    code, shown = command()
    assert code == 1
    assert "needs the package optuna: pip install -r requirements-search.txt" in shown.err


def test_the_held_out_split_takes_the_place_of_the_test_set():
    """As in configs/coarse/random_search.py, which otherwise selects on the test set."""
    cfg = tiny.make_config(selected_on="test", search__val_fraction=0.2)
    trial = worker.settings.trial_config(cfg)
    assert (trial.data.val_fraction, trial.selected_on) == (0.2, "val")
    assert cfg.selected_on == "test"
    cfg = tiny.make_config(selected_on="val", data__val_fraction=0.1, search__val_fraction=0.2)
    assert worker.settings.trial_config(cfg).data.val_fraction == 0.1
    with pytest.raises(UserError, match="there is none"):
        worker.settings.trial_config(tiny.make_config(selected_on="test"))
