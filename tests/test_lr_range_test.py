import csv
import errno
import json
import math
import os
import signal

import numpy as np
import pytest
import tiny

from cifar_jax import lr_range_test
from cifar_jax.range_test import files, sweep
from cifar_jax.range_test.suggestion import Point


def command(folder, *flags):
    """Runs the command with a small network on 400 synthetic images, four steps per epoch."""
    config = ["--config", str(tiny.ROOT / "configs/quickstart.py"), "--config.model.name=cnn_small"]
    config += ["--config.data.limit=400", "--config.batch_size=104", "--config.augment.ops="]
    return lr_range_test.main(["", *config, "--workdir", str(folder), *flags])


@pytest.mark.slow
def test_command_stops_at_divergence_and_writes_its_files(tmp_path, capsys):
    # With fewer epochs, whether the accuracy rises above its noise depends on rounding.
    assert command(tmp_path, "--from=1e-4", "--to=1000", "--epochs=20") == 0
    with (tmp_path / "range_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 4 <= len(rows) < 80  # of 20 epochs of 4 steps
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, 1e-4 * 1e7 ** (np.arange(len(rows)) / 79), rtol=1e-3)
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    found = json.loads((tmp_path / "range_test.json").read_text())
    assert rates[0] < found["base_learning_rate"] < found["max_learning_rate"] < rates[-1]
    settings = {"from": 1e-4, "to": 1000.0, "epochs": 20, "by": "step", "ended_by": "divergence"}
    assert settings.items() <= found.items() and found["versions"]["jax"]
    assert (tmp_path / "range_test.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert found["flags"] in printed and "schedule=triangular2" in printed


@pytest.mark.parametrize("steps_per_call", [0, 1])
def test_accuracy_by_epoch_is_measured_on_the_evaluated_split(tmp_path, steps_per_call):
    flags = ["--from=1e-4", "--to=1e-2", "--epochs=5", "--by=epoch"]
    assert command(tmp_path, *flags, f"--config.steps_per_call={steps_per_call}") == 0
    with (tmp_path / "range_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20]
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1e-2, 5), rtol=1e-3)
    counts = [float(row["accuracy"]) * 400 for row in rows]  # 400 validation images
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)


def test_groups_of_parameters_keep_the_ratios_of_their_learning_rates(tmp_path, monkeypatch):
    plans, advance = [], sweep._advance

    def record(engine, state, plan, *args):
        plans.append(np.asarray(plan.learning_rates))
        return advance(engine, state, plan, *args)

    monkeypatch.setattr(sweep, "_advance", record)
    groups = "*/bias: learning_rate=0.01, schedule='cosine', num_epochs=1"
    flags = ["--config.optim.learning_rate=0.002", f"--config.optim.groups={groups}"]
    assert command(tmp_path, *flags, "--from=1e-4", "--to=1e-2", "--epochs=2") == 0
    rates = np.concatenate([plans[0], plans[-1]])
    np.testing.assert_allclose(rates[:, 0], np.geomspace(1e-4, 1e-2, 8), rtol=1e-3)
    np.testing.assert_allclose(rates[:, 1], 5 * rates[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "own",
    [
        ["schedule=triangular2", "base_learning_rate=9e-4", "half_cycle_epochs=4.0"],
        ["warmup_epochs=3.0"],
        ["warmup_epochs=3.0", "groups=*/bias: warmup_epochs=4.5, schedule='cosine'"],
    ],
)
def test_the_configs_own_schedule_has_no_effect(tmp_path, own):
    """Its warm-up may be longer than the test."""
    flags = [f"--config.optim.{field}" for field in own]
    assert command(tmp_path, *flags, "--from=1e-4", "--to=1e-2", "--epochs=1") == 0
    with (tmp_path / "range_test.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1e-2, 4), rtol=1e-3)


@pytest.mark.usefixtures("library_convolutions")
def test_a_recipe_of_the_speedruns_can_be_tested_in_one_epoch(tmp_path):
    """Its warm-up, and its changes of the images' size, end later."""
    config = ["--config", str(tiny.ROOT / "configs/speedrun/cifar100_75.py")]
    config += ["--config.data.limit=400", "--config.data.name=synthetic", "--config.batch_size=96"]
    config += ["--config.model.widths=(4,6,8)", "--config.model.mid_widths=(4,6,8)"]
    flags = ["--workdir", str(tmp_path), "--from=1e-4", "--to=1e-2", "--epochs=1"]
    assert lr_range_test.main(["", *config, *flags]) == 0
    with (tmp_path / "range_test.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1e-2, 4), rtol=1e-3)


def test_a_full_disk_is_an_error_in_one_line(tmp_path, monkeypatch, capsys):
    def fill_the_disk(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "draw", fill_the_disk)
    monkeypatch.setattr(
        sweep, "run", lambda *_, **__: ([Point(0, 1e-3, 4.6, 0.1)], sweep.Ending("rate", 0))
    )
    assert command(tmp_path) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    assert "No space left on device. Once there is space, run the test again" in shown


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_ends_the_test_and_keeps_its_points(tmp_path, monkeypatch):
    seen = []

    def interrupt_at_the_ninth(*args, **kwargs):
        seen.append(args)
        if len(seen) == 9:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("builtins.print", interrupt_at_the_ninth)
    assert command(tmp_path, "--from=1e-5", "--to=1e-2", "--epochs=5") == 130
    assert len((tmp_path / "range_test.csv").read_text().splitlines()) == 1 + 9
    assert json.loads((tmp_path / "range_test.json").read_text())["ended_by"] == "Ctrl-C"


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_before_there_is_a_curve(tmp_path, monkeypatch, capsys):
    real = sweep._advance

    def interrupt(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(sweep, "_advance", interrupt)
    assert command(tmp_path, "--from=1e-5", "--to=1e-2", "--epochs=5") == 130
    assert "stopped after 1 points, too few for a curve" in capsys.readouterr().out
    assert not list(tmp_path.glob("range_test.*"))


def test_unusable_folder_is_refused_before_the_test(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "run", lambda *args, **kwargs: 1 / 0)
    (tmp_path / "file").write_text("")
    assert command(tmp_path / "file") == 1
    assert "file cannot be used" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert command(tmp_path) == 1
    assert "holds a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--by=epoch", "--epochs=3"], "--epochs must be at least 4 with --by=epoch, got 3"),
        (["--epochs=1", "--config.batch_size=200"], "2 steps are too few for a curve"),
        (["--from=1", "--to=0.1"], "--from and --to need 0 < from < to, got 1.0 and 0.1"),
        (["--epochs=0"], "--epochs must be at least 1 with --by=step, got 0"),
        (["--from=1e6", "--to=1e9"], "ended by divergence after"),
        (["--by=week"], "week"),
    ],
)
def test_invalid_flags_are_refused(tmp_path, capsys, flags, message):
    assert command(tmp_path, *flags) == 1
    assert message in capsys.readouterr().err
