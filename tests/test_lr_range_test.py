import csv
import json
import math
import os
import signal

import jax
import numpy as np
import pytest
import tiny
from test_configs import CONFIGS

from cifar_jax import config, data, engine, experiment, lr_range_test
from cifar_jax.lr_range_test import Point, flags_for, growth, smooth, suggest


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch):
    monkeypatch.setattr(data, "load", tiny.load)
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)


def command(folder, *flags):
    config = ("--config", str(tiny.ROOT / "configs/quickstart.py"), "--config.batch_size=25")
    return lr_range_test.main(["", *config, "--workdir", str(folder), *flags])


def test_the_rate_grows_by_one_factor_from_the_first_step_to_the_last():
    schedule = growth(1e-4, 1e-1, num_epochs=3, by_epoch=False)(10)
    rates = np.array([float(schedule(step)) for step in range(30)])
    np.testing.assert_allclose(rates[[0, -1]], [1e-4, 1e-1], rtol=1e-4)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1000 ** (1 / 29), rtol=1e-4)
    schedule = growth(1e-4, 1e-1, num_epochs=4, by_epoch=True)(10)
    rates = [float(schedule(step)) for step in (0, 9, 10, 39)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-3, 1e-1], rtol=1e-4)


def test_what_is_read_off_a_curve_that_rises_from_1e4_to_1e2_and_falls():
    rates = np.geomspace(1e-6, 1, 201)
    height = np.interp(np.log10(rates), [-4, -2, -1], [0.05, 0.65, 0.0])
    points = [Point(i, r, 3 - 4 * h, h) for i, (r, h) in enumerate(zip(rates, height, strict=True))]
    found = suggest(points)
    assert found["base_learning_rate"] == pytest.approx(10**-3.8, rel=0.3)
    assert found["max_learning_rate"] == pytest.approx(1e-2, rel=0.3)
    assert 1e-4 < found["steepest_learning_rate"] < 1e-2


def curve(accuracies):
    rates = np.geomspace(1e-6, 1, len(accuracies))
    return [Point(i, r, 4.6, a) for i, (r, a) in enumerate(zip(rates, accuracies, strict=True))]


def test_where_nothing_rises_nothing_is_suggested():
    noise = 0.01 + 0.002 * np.random.default_rng(0).standard_normal(200)
    for accuracies in (noise, np.full(200, 0.01), np.full(5, 0.01)):
        found = suggest(curve(accuracies))
        assert found["max_learning_rate"] is None and "does not rise" in found["warnings"][0]
    assert suggest(curve(noise + np.linspace(0, 0.02, 200)))["max_learning_rate"]
    few = suggest(curve([0.01, 0.05, 0.1, 0.02]))
    assert (
        few["max_learning_rate"] == pytest.approx(1e-2) and "4 points are few" in few["warnings"][0]
    )


def test_a_curve_that_rises_to_the_end_comes_with_a_warning():
    rising = curve(np.linspace(0, 0.5, 200))
    assert "greater --to" in suggest(rising)["warnings"][0]
    interrupted = suggest(rising, "Ctrl-C")
    assert (
        interrupted["max_learning_rate"] is None and "let it run on" in interrupted["warnings"][0]
    )
    assert not suggest(curve(np.interp(np.arange(200), [0, 150, 199], [0, 0.5, 0])))["warnings"]


@pytest.mark.parametrize("path", CONFIGS, ids=config.experiment_name)
def test_the_flags_fit_every_config(path):
    cfg = config.load(path)
    found = {"base_learning_rate": 1e-4, "max_learning_rate": 2e-3}
    for flag in flags_for(cfg, found).split():
        name, _, value = flag.removeprefix("--config.optim.").partition("=")
        cfg.optim[name] = type(cfg.optim[name])(value)
    schedule = experiment._schedule(cfg, 100)
    rates = [float(schedule(step)) for step in (0, 400)]
    np.testing.assert_allclose(rates, [1e-4, 2e-3], rtol=1e-5)


def test_smoothing_neither_shifts_nor_shrinks():
    values = np.linspace(0, 1, 100)
    np.testing.assert_allclose(smooth(values)[10:-10], values[10:-10])
    assert len(smooth(values)) == 100
    np.testing.assert_array_equal(smooth([1.0, 2.0, 3.0]), [1, 2, 3])  # too few to smooth


def test_the_command_stops_at_divergence_and_writes_its_files(tmp_path, capsys):
    assert command(tmp_path, "--from=1e-4", "--to=1000", "--epochs=10") == 0
    with (tmp_path / "range_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 4 <= len(rows) < 40  # of 10 epochs of 4 steps
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, 1e-4 * 1e7 ** (np.arange(len(rows)) / 39), rtol=1e-3)
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    found = json.loads((tmp_path / "range_test.json").read_text())
    assert rates[0] < found["base_learning_rate"] < found["max_learning_rate"] < rates[-1]
    asked = {"from": 1e-4, "to": 1000.0, "epochs": 10, "by": "step", "ended_by": "divergence"}
    assert asked.items() <= found.items() and found["versions"]["jax"]
    assert (tmp_path / "range_test.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert found["flags"] in printed and "schedule=triangular2" in printed


@pytest.mark.parametrize("steps_per_call", [0, 1])
def test_by_epoch_the_accuracy_is_that_of_the_evaluated_split(tmp_path, steps_per_call):
    flags = ["--from=1e-4", "--to=1e-2", "--epochs=5", "--by=epoch"]
    assert command(tmp_path, *flags, f"--config.steps_per_call={steps_per_call}") == 0
    with (tmp_path / "range_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20]
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1e-2, 5), rtol=1e-3)
    counts = [float(row["accuracy"]) * 32 for row in rows]  # of so many validation images
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)


def test_the_configs_own_schedule_does_not_matter(tmp_path):
    own = ["schedule=triangular2", "base_learning_rate=9e-4", "half_cycle_epochs=4.0"]
    flags = [f"--config.optim.{field}" for field in own]
    assert command(tmp_path, *flags, "--from=1e-4", "--to=1e-2", "--epochs=2") == 0


def test_ctrl_c_ends_the_test_with_what_there_is(tmp_path, monkeypatch):
    seen = []

    def interrupt_at_the_ninth(*args, **kwargs):
        seen.append(args)
        if len(seen) == 9:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("builtins.print", interrupt_at_the_ninth)
    assert command(tmp_path, "--from=1e-5", "--to=1e-2", "--epochs=5") == 0
    assert len((tmp_path / "range_test.csv").read_text().splitlines()) == 1 + 9
    assert json.loads((tmp_path / "range_test.json").read_text())["ended_by"] == "Ctrl-C"


def test_a_folder_that_cannot_be_used_is_refused_before_the_test(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lr_range_test, "run", lambda *args, **kwargs: 1 / 0)
    (tmp_path / "file").write_text("")
    assert command(tmp_path / "file") == 1
    assert "file cannot be used" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert command(tmp_path) == 1
    assert "a training lies in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--by=epoch", "--epochs=3"], "--epochs needs 4 or more with --by=epoch, not 3"),
        (["--epochs=1", "--config.batch_size=50"], "2 steps make no curve"),
        (["--from=1", "--to=0.1"], "--from and --to need 0 < from < to, not 1.0 and 0.1"),
        (["--epochs=0"], "--epochs needs 1 or more with --by=step, not 0"),
        (["--from=1e6", "--to=1e9"], "ended by divergence after"),
        (["--by=week"], "week"),
    ],
)
def test_wrong_flags_are_refused(tmp_path, capsys, flags, message):
    assert command(tmp_path, *flags) == 1
    assert message in capsys.readouterr().err
