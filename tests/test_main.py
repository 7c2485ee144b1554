import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from cifar_jax import experiment, parameter_table
from cifar_jax import main as command
from cifar_jax import train as training
from cifar_jax.config import command_line
from cifar_jax.errors import UserError

QUICKSTART = ("--config", "configs/quickstart.py")
# A run of one epoch on a few images.
SMALL = [
    *QUICKSTART, "--config.num_epochs=1", "--config.model.name=cnn2",
    "--config.model.filters=(4,8)", "--config.model.dense_units=32", "--config.batch_size=32",
    "--config.eval_batch_size=16", "--config.data.limit=100", "--config.data.val_fraction=0.0",
    "--config.selected_on=last",
]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--config is missing, as in: python -m cifar_jax.main --config configs/resnet18.py"),
        (("configs/quickstart.py",), "--config is missing (put it before the file)"),
        (("--cofnig", "configs/quickstart.py"), "--config is missing (is --cofnig misspelled?)"),
        (("--workdir=x", "configs/quickstart.py"), "--config is missing (put it before the file)"),
        (("--config", "README.md"), "README.md is not a Python file: configs/ has"),
        ((*QUICKSTART, "--config.model.drop=1"), "unknown option of cnn3 'model.drop'"),
        (
            ("--config", "configs/resnet81.py"),
            "configs/resnet81.py is not a file: did you mean configs/resnet18.py?",
        ),
        ((*QUICKSTART, "--config.optim.lr=3"), "unknown config field 'optim.lr'"),
        (
            (*QUICKSTART, "--config.optim.learning_rat=3"),
            "did you mean 'optim.learning_rate'",
        ),
        (
            (*QUICKSTART, "--config.batch_size=many"),
            "--config.batch_size needs a whole number, as in --config.batch_size=64, got 'many'",
        ),
        ((*QUICKSTART, *QUICKSTART), "--config is given twice"),
        ((*QUICKSTART, "--confg.seed=1"), "unknown flag --confg.seed. Known: --config FILE, "),
        ((*QUICKSTART, "--num_epochs=1"), "did you mean --config.num_epochs?"),
        ((*QUICKSTART, "seed=1"), "unexpected argument 'seed=1'; flags look like"),
        ((*QUICKSTART, "--config.seed=-1"), "seed must be from 0 to 4294967295, got -1"),
        (
            (*QUICKSTART, "--config.plateau.factor=0.5"),
            "plateau.factor has no effect while plateau.patience is 0",
        ),
        ((*QUICKSTART, "--config.model.dropout=(2.0,)"), "dropout rate must be in [0, 1)"),
        (
            (*QUICKSTART, "--config.model.name=resnet8", "--workdir", "/dev/null/x"),
            "unknown model 'resnet8'; did you mean 'resnet18'",
        ),
        ((*QUICKSTART, "--workdir", "/dev/null/x"), "--workdir /dev/null/x cannot be used"),
    ],
)
def test_invalid_command_gets_one_line_and_no_traceback(args, message, monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)
    assert command.main(["", *args]) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("error: ") and shown.count("\n") == 1


def test_the_last_of_repeated_fields_counts():
    flags = ["--config.model.filters=(8,16)", "--config.seed=1", "-config.model.filters=4,9"]
    config, _ = command_line.parse(["main", *SMALL, *flags, "--config.seed=2"], "")
    assert (config.model.filters, config.seed) == ((4, 9), 2)


@pytest.mark.parametrize(
    ("flag", "note"),
    [
        ("optim.power=2.0", "no effect with optim.schedule 'constant' and optim.name 'adam'"),
        ("optim.power=1.0", ""),
        ("optim.beta1=0.8", ""),
        ("optim.weight_decay_mask=kernels", "has no effect with optim.weight_decay 0"),
        ("optim.momentum=0.9", ""),  # an error
        ("data.dir=folder", "has no effect with data.name 'synthetic'"),
        ("optim.sam_rho=0.1", ""),
        ("selected_by=loss", ""),
        ("data.val_seed=1", ""),
        ("transfer.cache_features=False", "has no effect with transfer.train 'all'"),
        ("transfer.unfreeze_epochs=(0,900)", ""),
    ],
)
def test_a_field_without_effect_gets_a_note(flag, note, capsys):
    argv = ["", "--config", str(tiny.ROOT / "configs/quickstart.py"), f"--config.{flag}"]
    command_line.parse(argv, "usage\n\nexample")
    shown = capsys.readouterr().err
    assert (note in shown and shown.startswith("note: --config.")) if note else shown == ""


@pytest.mark.parametrize("file", ["callbacks/school_improved", "speedrun/airbench95", "cnn3"])
@pytest.mark.parametrize(("group", "switch"), command_line.SWITCHES.items())
def test_callbacks_and_averages_can_be_switched_off(file, group, switch):
    argv = ["", "--config", str(tiny.ROOT / f"configs/{file}.py"), f"--config.{group}.{switch}=0"]
    config, _ = command_line.parse(argv, "usage\n\nexample")
    assert config[group][switch] == 0


@pytest.mark.parametrize("text", ["(0.1,0.2,0.1,0.1,0.1)", "[0.1, 0.2, 0.1, 0.1, 0.1]"])
def test_an_option_may_be_a_list_where_the_default_is_a_number(text):
    flags = ["--config.model.name=cnn9", f"--config.model.dropout={text}"]
    config, _ = command_line.parse(["", *QUICKSTART, *flags], "usage\n\nexample")
    assert tuple(config.model.dropout) == (0.1, 0.2, 0.1, 0.1, 0.1)
    with pytest.raises(UserError, match="depth must be a positive integer"):
        flags = ["--config.model.name=pyramidnet", "--config.model.depth=(2,3)"]
        config, _ = command_line.parse(["", *QUICKSTART, *flags], "usage\n\nexample")
        experiment.checked(config)


def test_the_value_of_a_flag_may_follow_it():
    argv = ["", *QUICKSTART, "--config.model.name", "cnn2", "--config.model.filters", "4,8"]
    config, _ = command_line.parse([*argv, "--config.seed", "3"], "usage\n\nexample")
    assert (config.model.name, config.model.filters, config.seed) == ("cnn2", (4, 8), 3)


def test_notes_depend_on_the_other_fields(capsys):
    argv = ["", "--config", str(tiny.ROOT / "configs/cnn3.py"), "--config.num_epochs=2"]
    argv += ["--config.optim.schedule=step", "--config.optim.step_epochs=(3,)"]
    argv += ["--config.data.val_seed=1", "--config.data.val_fraction=0.0"]
    argv += ["--config.selected_on=last", "--config.selected_by=loss"]
    command_line.parse(argv, "usage\n\nexample")
    assert capsys.readouterr().err.splitlines() == [
        "note: --config.optim.step_epochs has no effect with num_epochs 2",
        "note: --config.data.val_seed has no effect with data.val_fraction 0",
        "note: --config.selected_by has no effect with selected_on 'last'",
    ]


def test_a_field_that_a_group_of_parameters_may_use_gets_no_note(capsys):
    argv = ["", "--config", str(tiny.ROOT / "configs/quickstart.py")]
    argv += ["--config.optim.power=2.0", "--config.optim.weight_decay_mask=kernels"]
    argv += ["--config.optim.groups=*: schedule='polynomial', weight_decay=0.1"]
    command_line.parse(argv, "usage\n\nexample")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("default_signals")
def test_signal_before_training_exits_immediately(tmp_path):
    """tests/runtime/test_entry.py sends SIGINT and SIGTERM during the imports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_jax.main", *QUICKSTART, "--workdir", tmp_path / "run"],
        cwd=tiny.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run").exists():  # the workdir is created after jax is imported
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    assert stderr == "stopped before training began; nothing to save\n"


def test_help_lists_the_fields_of_the_config(monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)

    def shown(*args):
        with pytest.raises(SystemExit) as stop:
            command.main(["", *args, "--help"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    assert "--config configs/resnet18.py" in shown()
    fields = shown(*QUICKSTART)
    assert "--config.optim.learning_rate=0.001" in fields
    assert "--config.model.dropout=(0.1, 0.25, 0.5)" in fields
    other = shown(*QUICKSTART, "--config.model.name=resnet34")
    assert "--config.model.depths=(3, 4, 6, 3)" in other and "dropout" not in other


def test_configs_work_from_any_directory(tmp_path, monkeypatch, capsys):
    config = tiny.ROOT / "configs" / "quickstart.py"
    monkeypatch.chdir(tmp_path)
    assert command.main(["", "--config", str(config), "--config.model.name=none"]) == 1
    assert "unknown model 'none'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_pictures_of_a_complete_run_are_drawn_once(tmp_path, monkeypatch, capsys):
    """Runs in this process, on a few images of the synthetic data set and on all devices."""
    monkeypatch.setattr(command, "exit_on_signals", lambda *_: None)
    flags = [*SMALL, "--workdir", str(tmp_path)]
    monkeypatch.chdir(tiny.ROOT)
    assert command.main(["", *flags]) == 0
    assert "figures in" in capsys.readouterr().out
    plots = tmp_path / "plots"
    assert {"loss.png", "confusion_class.png", "errors.json"} <= {p.name for p in plots.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in plots.iterdir()}
    assert command.main(["", *flags]) == 0
    assert "is complete" in capsys.readouterr().out
    assert times == {path.name: path.stat().st_mtime_ns for path in plots.iterdir()}
    # Damaged predictions are rebuilt. Pictures that cannot be written do not make a run fail.
    shutil.rmtree(plots)
    plots.touch()
    (tmp_path / "predictions.npz").write_bytes(b"damaged")
    assert command.main(["", *flags]) == 0
    printed = capsys.readouterr()
    assert "rebuilding it from the checkpoint" in printed.out and "no figures" in printed.err


@pytest.mark.usefixtures("compiled_once")
def test_flags_leave_config_and_results_as_they_are(tmp_path, monkeypatch, capsys):
    """Runs in this process, on a few images of the synthetic data set and on all devices."""
    monkeypatch.setattr(command, "exit_on_signals", lambda *_: None)
    monkeypatch.setattr(command, "_draw", lambda _: None)
    monkeypatch.chdir(tiny.ROOT)
    flags = [*SMALL, "--config.steps_per_call=1"]
    monkeypatch.setattr(parameter_table, "MAX_ROWS", 2)
    plain, profiled = tmp_path / "plain", tmp_path / "profiled"
    assert command.main(["", *flags, "--workdir", str(plain)]) == 0
    assert "conv1/kernel" not in capsys.readouterr().out
    flags += ["--profile", "--all_parameters"]
    assert command.main(["", *flags, "--workdir", str(profiled)]) == 0
    assert "conv1/kernel" in capsys.readouterr().out
    assert len(list(profiled.glob("profile/**/*.xplane.pb"))) == 1
    assert not (plain / "profile").exists()
    assert (plain / "config.json").read_bytes() == (profiled / "config.json").read_bytes()
    first, second = (np.load(folder / "predictions.npz") for folder in (plain, profiled))
    np.testing.assert_array_equal(first["logits"], second["logits"])


def test_layers_that_never_train_get_a_note(monkeypatch, capsys):
    monkeypatch.setattr(training, "train", lambda *_, **__: None)
    monkeypatch.setattr(command, "_draw", lambda _: None)
    for epochs, note in (((0, 2), ""), ((0, 30), "note: layers that start to train at epoch 30 (")):
        flags = [f"--config.transfer.unfreeze_epochs={epochs}", "--config.num_epochs=3"]
        assert command.main(["", *QUICKSTART, *flags]) == 0
        shown = capsys.readouterr().err
        assert shown.startswith(note) and bool(shown) == bool(note)


def test_bug_while_drawing_keeps_its_traceback(tmp_path, monkeypatch):
    from cifar_jax.report import pictures, read

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(command, "exit_on_signals", lambda *_: None)
    monkeypatch.setattr(read, "read", lambda _: None)
    monkeypatch.setattr(pictures, "write", fail)
    monkeypatch.setattr("cifar_jax.report.examples.load", lambda _: (None, ""))
    with pytest.raises(ZeroDivisionError):
        command._draw(tmp_path)


def test_a_signal_after_training_says_that_the_run_is_complete(tmp_path, monkeypatch):
    """Even while the modules that draw are being imported, which takes seconds."""

    class Installed(Exception):
        pass

    def install(line):
        assert line == b"stopped while drawing; the run is complete\n"
        raise Installed

    monkeypatch.setattr(command, "exit_on_signals", install)
    for name in [name for name in sys.modules if name.startswith("cifar_jax.report")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Installed):
        command._draw(tmp_path)
    assert not any(name.startswith("cifar_jax.report") for name in sys.modules)
