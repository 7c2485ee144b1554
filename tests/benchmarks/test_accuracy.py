import json
import math
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import jax
import pytest
import tiny

from benchmarks import results
from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import jobs, runs, sequential
from benchmarks.accuracy.table import table
from cifar_jax import config, data, engine, experiment, models
from cifar_jax.errors import UserError

IDS = ("coarse/cnn2_batch64", "cifar10/cnn_small")


@pytest.fixture
def small(monkeypatch, tmp_path, compiled_once):
    """Returns flags that train two experiments with a tiny network and data on one device."""
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)
    monkeypatch.setattr(data, "load", tiny.load)
    monkeypatch.setattr(models, "create", tiny.create_network)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # would trace all functions of JAX again
    return ["", *IDS, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]


def test_runs_are_logged_once_and_compared_with_published_results(small, tmp_path, capsys):
    flags = [*small, "--epochs", "1", "--seeds", "2", "--data_dir", "/somewhere"]
    assert accuracy.main(flags) == 0
    for name in IDS:
        for seed in (0, 1):
            folder = tmp_path / "out" / name / f"seed{seed}_1epochs"
            summary = json.loads((folder / "summary.json").read_text())
            assert (summary["experiment"], summary["seed"], summary["epochs"]) == (name, seed, 1)
            settings = config.flatten(json.loads((folder / "config.json").read_text()))
            assert settings["data.dir"] == "" and settings["seed"] == seed
            assert (folder / "metrics.csv").read_text().count("\n") == 2
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("coarse/cnn2_batch64  "))
    assert "49.60%" in row and "), 2 runs at epoch 1 of 20" in row and " shortened" in row
    # Every experiment runs with seed 0 before any runs with seed 1.
    order = [printed.index(f"{name}, seed {seed}:") for seed in (0, 1) for name in IDS]
    assert order == sorted(order)

    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert accuracy.main(flags) == 0
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


def test_losses_and_seconds_are_compared_with_the_published_ones(tmp_path):
    tiny.write_log(tmp_path / "assignment/cnn3/seed0", "assignment/cnn3", 0.55)
    (row,) = (row for row in results.rows(tmp_path) if row.experiment == "assignment/cnn3")
    line = table([row]).splitlines()[1]
    for text in ("56.02%", "55.00%", "-1.02 points", "1.6550, here 1.5000", "1,002, here 60"):
        assert text in line


def test_a_failed_run_is_named_and_the_others_continue(small, tmp_path, monkeypatch, capsys):
    real = data.load

    def load(name, *, label, **kwargs):
        if label == "coarse":
            raise UserError("no such data")
        return real(name, **kwargs)

    monkeypatch.setattr(data, "load", load)
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1))
    assert accuracy.main([*small, "--epochs", "1", "--seeds", "2"]) == 1
    printed = capsys.readouterr().out
    for seed in (0, 1):
        assert f"failed: coarse/cnn2_batch64, seed {seed}: no such data" in printed
    assert {path.parent.name for path in (tmp_path / "out").rglob("seed*")} == {"cnn_small"}
    assert len(cleared) == 4


@pytest.mark.parametrize("jobs_flags", [[], ["--jobs", "2"]])
def test_runs_whose_weights_cannot_be_downloaded_are_skipped(
    small, tmp_path, monkeypatch, capsys, jobs_flags
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folders = [*small[3:], "--epochs", "1"]
    assert accuracy.main(["", IDS[1], *folders]) == 0
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("started a process"))
    flags = ["", "coarse/vgg16_transfer", IDS[1], *folders]
    assert accuracy.main([*flags, *jobs_flags]) == 0
    printed = capsys.readouterr().out
    assert "skipped: coarse/vgg16_transfer, seed 0: https://storage.googleapis.com/" in printed
    assert "failed" not in printed and "\ncoarse/vgg16_transfer, seed 0:" not in printed
    # A run that has the weights, or needs none because it resumes, is not skipped.
    run, *_ = runs.plan(["coarse/vgg16_transfer"], accuracy.make_parser().parse_args(flags[1:]))
    assert runs.without_weights([run])
    run.settings.transfer.weights = str(tmp_path / "file.h5")
    assert not runs.without_weights([run])
    run.settings.transfer.weights = "keras"
    (run.workdir / "checkpoints" / "7").mkdir(parents=True)
    assert not runs.without_weights([run])


def test_a_log_with_different_settings_does_not_count_as_complete(small, tmp_path, capsys):
    for name in IDS:
        folder = tmp_path / "out" / name / "seed0_1epochs"
        tiny.write_log(folder, name, 0.3, num_epochs=1, augment__ops="flip")
    assert accuracy.main([*small, "--epochs", "1"]) == 1
    printed = capsys.readouterr()
    for name in IDS:
        assert f"{name}/seed0_1epochs holds a log with different settings: augment" in printed.err


def test_a_run_is_saved_at_the_time_limit_and_the_next_call_resumes_it(
    small, tmp_path, monkeypatch, capsys
):
    flags = [*small, "--epochs", "3"]
    with monkeypatch.context() as patch:
        times = iter([0.0])  # the first run starts in time, however busy the machine is
        clock = SimpleNamespace(monotonic=lambda: next(times, math.inf))
        patch.setattr(sequential, "time", clock)
        assert accuracy.main([*flags, "--minutes", "0.001"]) == 0
    printed = capsys.readouterr().out
    assert "saved at step 0 of" in printed and "minutes is reached" in printed
    assert f"{IDS[1]}, seed 0:" not in printed  # the second was not started
    assert not (tmp_path / "out").exists()
    assert accuracy.main([*flags[:2], *flags[3:], "--minutes", "9"]) == 0
    printed = capsys.readouterr().out
    assert "resumed at step 0" in printed and "is reached" not in printed
    assert (tmp_path / "out" / IDS[0] / "seed0_3epochs" / "summary.json").exists()


def test_patterns_select_experiments_in_the_given_order():
    assert runs.choose(["coarse/cnn4", "cifar10/*", "coarse/cnn4"]) == [
        "coarse/cnn4", "cifar10/cnn_deep", "cifar10/cnn_small", "cifar10/resnet18",
    ]  # fmt: skip
    assert len(runs.choose([])) == 37
    assert runs.choose(["resnet18"]) == ["resnet18"]  # not published, but a config
    with pytest.raises(UserError, match="did you mean 'coarse/cnn4'"):
        runs.choose(["coarse/cnn5"])


def test_logs_are_written_below_the_workdirs_by_default(small, tmp_path, capsys):
    """The logs of the checkout are from other machines, and count for none here."""
    flags = [small[0], IDS[0], *small[3:-2], "--epochs", "1"]
    assert accuracy.main(flags) == 0
    assert (tmp_path / "runs/logs" / IDS[0] / "seed0_1epochs/summary.json").exists()
    assert "already complete" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [["--seeds", "0"], ["--epochs", "0"], ["nothing/*"], ["--runs", "here", "--out", "./here"]],
)
def test_invalid_flags_are_rejected(flags, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert accuracy.main(["", *flags]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_jobs_run_in_separate_processes(tmp_path, monkeypatch, capsys):
    """One of the two needs no data; the data of the other is missing."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    flags = ["quickstart", "cnn3", "--limit", "64", "--epochs", "1", "--jobs", "2"]
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert accuracy.main(["", *flags, *folders, "--data_dir", str(tmp_path / "data")]) == 1
    printed = capsys.readouterr().out
    for name in ("quickstart", "cnn3"):
        assert f"started {name}, seed 0" in printed
    folder = tmp_path / "out" / "quickstart" / "seed0_1epochs_64images"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 1 and summary["runs_on_device"] == 2
    log = tmp_path / "runs" / "quickstart" / "seed0_1epochs_64images.log"
    assert "train loss" in log.read_text()
    assert "ended: quickstart, seed 0" in printed
    assert "failed: cnn3, seed 0: exit code 1: " in printed and str(tmp_path / "data") in printed


@pytest.mark.parametrize(
    "slots, gpus, sharing", [(4, 0, [4, 4, 4, 4]), (1, 1, [1]), (4, 1, [4] * 4), (3, 2, [2, 1, 2])]
)
def test_runs_that_share_a_device_are_counted(slots, gpus, sharing):
    assert [jobs._num_sharing(slot, slots, gpus) for slot in range(slots)] == sharing


def test_complete_runs_start_no_process(small, tmp_path, monkeypatch, capsys):
    flags = [*small, "--epochs", "1"]
    assert accuracy.main(flags) == 0
    shutil.rmtree(tmp_path / "out" / IDS[0])  # only its workdir is left
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("started a process"))
    assert accuracy.main([*flags, "--jobs", "2"]) == 0
    printed = capsys.readouterr().out
    for name in IDS:
        log = tmp_path / "out" / name / "seed0_1epochs"
        assert f"already complete: {log}\n" in printed and (log / "summary.json").exists()
    tiny.write_log(tmp_path / "out" / IDS[0] / "seed1_1epochs", IDS[0], 0.3, augment__ops="flip")
    flags = [*small[:2], *small[3:], "--epochs", "1", "--jobs", "2", "--first_seed", "1"]
    assert accuracy.main(flags) == 1
    assert f"failed: {IDS[0]}, seed 1: {tmp_path}" in capsys.readouterr().out


def test_a_job_that_cannot_be_checked_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def is_done(run):
        if run.settings.seed == 0:
            raise FileNotFoundError("no metrics.csv")
        return True

    monkeypatch.setattr(jobs, "is_done", is_done)
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert accuracy.main(["", "cnn3", "--jobs", "2", "--seeds", "2", *folders]) == 1
    printed = capsys.readouterr()
    assert "failed: cnn3, seed 0: no metrics.csv" in printed.out and "cnn3, seed 0" in printed.err


@pytest.mark.usefixtures("default_signals")
def test_a_signal_while_a_job_starts_reaches_it(tmp_path, monkeypatch):
    received = []

    class Process:
        def poll(self):
            return 128 + received[0] if received else None

        def send_signal(self, signum):
            received.append(signum)
            self.returncode = 128 + signum

    def start(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return Process()

    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs.time, "sleep", lambda _: received or pytest.fail("not forwarded"))
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert accuracy.main(["", "cnn3", "--jobs", "2", *folders]) == 143
    assert received == [signal.SIGTERM]


def test_jobs_use_the_visible_gpus_in_turn(tmp_path, monkeypatch):
    started = []

    def start(run, minutes, gpu, sharing, args):
        started.append((run.settings.seed, gpu, sharing))
        jobs._log_file(run, args).parent.mkdir(parents=True, exist_ok=True)
        jobs._log_file(run, args).write_text("a line")
        return SimpleNamespace(returncode=1, poll=lambda: 1)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    flags = ["cnn3", "--limit", "64", "--jobs", "3", "--seeds", "4", *folders]
    assert accuracy.main(["", *flags]) == 1
    assert started == [(0, "3", 2), (1, "5", 1), (2, "3", 2), (3, "3", 2)]


@pytest.mark.usefixtures("default_signals")
def test_jobs_that_ctrl_c_stops_have_not_failed(tmp_path, monkeypatch, capsys):
    class Process:
        returncode = None

        def poll(self):
            return self.returncode

        def send_signal(self, signum):
            self.returncode = 128 + signum

    monkeypatch.setattr(jobs, "_start", lambda *_: Process())
    monkeypatch.setattr(jobs.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert accuracy.main(["", "cnn3", "--jobs", "2", *folders]) == 130
    printed = capsys.readouterr().out
    assert "stopped: cnn3, seed 0" in printed and "failed" not in printed


def test_a_job_receives_no_signals_from_the_terminal(tmp_path, monkeypatch):
    """It would receive a Ctrl-C twice, and exit without saving."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport os; print(os.getpgrp())")
    program.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(program))
    flags = ["cnn3", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    args = accuracy.make_parser().parse_args(flags)
    [run] = runs.plan(["cnn3"], args)
    process = jobs._start(run, 1.0, None, 1, args)
    assert process.wait() == 0
    assert int(jobs._log_file(run, args).read_text()) == process.pid


@pytest.mark.parametrize("option", ["--runs", "--out"])
def test_folders_that_cannot_be_written_are_refused_before_training(tmp_path, option, capsys):
    (tmp_path / "file").touch()
    assert accuracy.main(["", "cnn3", option, str(tmp_path / "file" / "below")]) == 1
    assert f"{tmp_path}/file is not a writable directory" in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_stop_at_the_time_limit(tmp_path, capsys):
    # Three seconds are enough to start two processes, and too few to compile their programs.
    flags = ["quickstart", "--jobs", "2", "--seeds", "9", "--minutes", "0.05", "--limit", "64"]
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert accuracy.main(["", *flags, *folders]) == 0
    printed = capsys.readouterr().out
    assert " is reached: run the same command to continue" in printed
    assert "out of time: quickstart, seed 0" in printed and "ended:" not in printed
