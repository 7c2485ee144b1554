import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from fake_cifar import shrink, write

from cifar_jax import data, prepare
from cifar_jax.data import builders, download, prepared
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def fetch(*args):
        raise UserError("no network in this test")

    shrink(monkeypatch)
    monkeypatch.setattr(download, "fetch", fetch)


def test_prepares_every_name_and_prints_how_to_use_it(tmp_path, capsys):
    write("cifar10", tmp_path / "raw")
    write("cifar100", tmp_path / "raw")
    arguments = ["cifar10", "cifar100", "--data_dir", f"{tmp_path}/tfds"]
    assert prepare.main([*arguments, "--source", f"{tmp_path}/raw"]) == 0
    out = capsys.readouterr().out
    for name, count in (("cifar10", 40), ("cifar100", 8)):
        directory = prepared.find(name, tmp_path / "tfds")
        assert f"{count} train and 4 test images to {directory} (" in out
        assert f"--config.data.name={name} --config.data.dir={tmp_path}/tfds" in out


def test_second_call_reports_existing_files_and_succeeds(tmp_path, capsys):
    fake = write("cifar100", tmp_path)
    arguments = ["cifar100", "--data_dir", str(tmp_path), "--source", str(fake.folder)]
    assert prepare.main(arguments) == 0
    written = prepared.find("cifar100", tmp_path).stat().st_mtime_ns
    capsys.readouterr()
    assert prepare.main(arguments) == 0
    assert "already prepared" in capsys.readouterr().out
    assert prepared.find("cifar100", tmp_path).stat().st_mtime_ns == written
    assert prepare.main([*arguments, "--overwrite"]) == 0
    assert prepared.find("cifar100", tmp_path).stat().st_mtime_ns > written


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["cifar1000"], "error: unknown data set 'cifar1000'; did you mean 'cifar100'"),
        (["cifar100"], "no network in this test"),
        (["cifar100", "--source", "/nowhere"], "error: /nowhere does not exist"),
    ],
)
def test_errors_are_one_line_with_exit_code_1(tmp_path, capsys, arguments, match):
    assert prepare.main([*arguments, "--data_dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert match in err and err.count("\n") == 1


def test_unknown_name_is_rejected_before_any_work(tmp_path, capsys):
    write("cifar10", tmp_path)
    arguments = ["cifar10", "cifar11", "--data_dir", str(tmp_path), "--source", str(tmp_path)]
    assert prepare.main(arguments) == 1
    assert prepared.find("cifar10", tmp_path) is None


def test_command_without_network_fails_within_fifteen_seconds(tmp_path):
    # A proxy that refuses connections simulates the missing network.
    environment = os.environ | {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-m", "cifar_jax.prepare", "cifar100", "--data_dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=15,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cifar100 is not in") and "Traceback" not in done.stderr
    assert "Connection refused" in done.stderr


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_removes_incomplete_files(tmp_path, monkeypatch, capsys, signum):
    def interrupted(self, split, generate=builders._FromArchive._generate_examples):
        yield from generate(self, split)
        assert list((tmp_path / "tfds/cifar10").iterdir())
        os.kill(os.getpid(), signum)

    monkeypatch.setattr(builders._FromArchive, "_generate_examples", interrupted)
    fake = write("cifar10", tmp_path / "raw")
    arguments = ["cifar10", "--source", str(fake.folder), "--data_dir", str(tmp_path / "tfds")]
    assert prepare.main(arguments) == 128 + signum
    assert capsys.readouterr().err == "interrupted; incomplete files have been removed\n"
    assert not (tmp_path / "tfds").exists()


def test_handlers_are_restored(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    prepare.main(["cifar1000", "--data_dir", str(tmp_path)])
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def test_user_without_a_home_directory(tmp_path, capsys, monkeypatch):
    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    fake = write("cifar10", tmp_path)
    assert prepare.main(["cifar10", "--source", str(fake.folder)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ~/tensorflow_datasets: there is no such home directory")
    arguments = ["cifar10", "--source", str(fake.folder), "--data_dir", str(tmp_path / "tfds")]
    assert prepare.main(arguments) == 0
    images = data.load("cifar10", data_dir=tmp_path / "tfds").test.images
    assert np.array_equal(images, fake.images["test"])
