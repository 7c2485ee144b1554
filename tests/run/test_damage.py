"""Damaged workdirs: damage is never used silently, and never ends in a traceback."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from test_train import assert_same_run

from cifar_jax import engine, predict
from cifar_jax.errors import UserError
from cifar_jax.report.read import read
from cifar_jax.run import (
    checkpoint_meta,
    checkpoint_reader,
    checksums,
    predictions,
    storage,
    workdir,
)
from cifar_jax.run.checkpoint import open_checkpoints
from cifar_jax.run.checkpoint_reader import Damaged
from cifar_jax.trained import restore

SHARDING = NamedSharding(engine.make_mesh(jax.devices()[:1]), P())
STATE = {
    # Too large, and too random, for Orbax to store it inside its index.
    "w": jax.device_put(jax.random.normal(jax.random.key(0), (64, 64)), SHARDING),
    "key": jax.device_put(jax.random.key(7), SHARDING),
}
META = {"rows": [{"loss": 0.5}]}

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """Returns a folder with checkpoints 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with open_checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, STATE, META, score=-step)
            checkpoints.wait()
    return folder


def damages(path):
    """Yields functions that damage a file, each in its own way."""
    content = path.read_bytes()
    yield path.unlink
    for other in (b"", content[: len(content) // 2], b"\xff\x00nonsense", b"{}", b"[1]", b"null"):
        yield lambda other=other: path.write_bytes(other)
    for place in np.linspace(0, len(content) - 1, 5).astype(int):
        flipped = bytes([content[place] ^ 1])
        changed = content[:place] + flipped + content[place + 1 :]
        yield lambda changed=changed: path.write_bytes(changed)


def restore_latest(folder):
    with open_checkpoints(folder) as checkpoints:
        step, state, meta = checkpoints.restore_latest(STATE, SHARDING, lambda meta: "rows" in meta)
    jax.tree.map(np.testing.assert_array_equal, checksums.of_arrays(state), SUMS)
    assert meta == META
    return step


SUMS = checksums.of_arrays(STATE)


@pytest.mark.parametrize(
    "pattern",
    [
        *("meta/metadata", "metrics/metrics", "_CHECKPOINT_METADATA", "state/_METADATA"),
        *("state/array_metadatas/process_0", "state/manifest.ocdbt", "state/d/*"),
        "state/ocdbt.process_0/d/*",
    ],
)
def test_a_damaged_checkpoint_is_restored_as_saved_or_not_at_all(
    two_checkpoints, tmp_path, pattern, capsys
):
    steps = []
    for file in (two_checkpoints / "3").glob(pattern):
        for i in range(len(list(damages(file)))):
            folder = tmp_path / f"{file.name}{i}"
            shutil.copytree(two_checkpoints, folder)
            list(damages(folder / file.relative_to(two_checkpoints)))[i]()
            steps.append(restore_latest(folder))
            printed = capsys.readouterr().out
            if steps[-1] == 2:  # the damaged one was reported and removed
                assert printed.count("\n") == 1 and f"checkpoint {folder / '3'} cannot" in printed
                assert not (folder / "3").exists()
            else:
                assert steps[-1] == 3 and not printed
    # Orbax does without some of its files, but these hold the content.
    if pattern == "meta/metadata":
        assert set(steps) == {2}
    if "/d/" in pattern:
        assert 2 in steps


def test_a_flipped_bit_in_an_array_is_named(two_checkpoints, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(two_checkpoints, folder)
    chunk = max((folder / "3").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with open_checkpoints(folder) as checkpoints:
        with pytest.raises(Damaged, match="the checksum of w differs"):
            checkpoints.restore(3, STATE, SHARDING)
        assert checkpoints.restore(2, STATE, SHARDING)[1] == META


def test_every_changed_word_changes_the_checksum():
    for array in (jnp.arange(9, dtype=jnp.bfloat16), jnp.zeros((), jnp.int32), np.zeros((3, 4))):
        words = np.array(checksums.on_host(array))
        before = checksums.of_arrays([array])
        for i in range(words.size):
            changed = words.copy()
            changed.reshape(-1)[i] += 1
            assert checksums.of_arrays([changed]) != before
    assert checksums.of_arrays([jax.random.key(1)]) != checksums.of_arrays([jax.random.key(2)])


def test_a_checkpoint_under_another_step_is_not_restored(two_checkpoints, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(two_checkpoints, folder)
    shutil.copytree(folder / "2", folder / "500")
    for name in ("99999999999999999999", "007", "x_7", "-3"):
        shutil.copytree(folder / "2", folder / name)
    assert restore_latest(folder) == 3


def test_a_checkpoint_without_checksums_is_read(two_checkpoints, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(two_checkpoints, folder)
    (folder / "3" / "meta" / "metadata").write_text(json.dumps(META))
    assert restore_latest(folder) == 3


@pytest.mark.parametrize(
    "name", ["lr[0.002]", "a*b", "what?", "a\\b", "gs:", "new\nline", "\udcff", "ünï code%"]
)
def test_folders_with_special_names_hold_checkpoints(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    with open_checkpoints(folder) as checkpoints:
        checkpoints.save(1, STATE, META)
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert restore_latest(folder) == 1


def test_a_save_that_cannot_be_read_is_reported_and_the_older_ones_are_kept(tmp_path, monkeypatch):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, STATE, META)
        checkpoints.save(2, STATE, META)
        checkpoints.wait()
        save = checkpoints._orbax.save

        def lose_the_arrays(path, **kwargs):
            save(path, **kwargs)
            (path / "state" / "manifest.ocdbt").unlink()

        monkeypatch.setattr(checkpoints._orbax, "save", lose_the_arrays)
        checkpoints.save(3, STATE, META)
        with pytest.raises(UserError, match=f"checkpoint {tmp_path / '3'} cannot be read"):
            checkpoints.wait()
    assert restore_latest(tmp_path) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left"), r"No space left .*1\.1 MB are needed.* there is space"),
        (
            ValueError("RESOURCE_EXHAUSTED: Failed to write 2 bytes [os_error_code='28']"),
            r"No space left on device .*1\.1 MB are needed.* there is space",
        ),
        (OSError(122, "quota"), "Disk quota exceeded. Once there is space, the same command conti"),
        (OSError(30, "read-only"), "Read-only file system. Once it can be written, the same"),
    ],
)
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch, error, message
):
    def fail(path, **_):
        (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
        raise error

    with (
        pytest.raises(UserError, match=message) as full,
        open_checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(1, STATE, META)
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._orbax, "save", fail)
        checkpoints.save(2, STATE, META)
    assert "\n" not in str(full.value)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert restore_latest(tmp_path) == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "/run/2.orbax-checkpoint-tmp/state"),
        OSError(39, "Directory not empty", "/run/2.orbax-checkpoint-tmp"),
        ValueError("NOT_FOUND: Error opening file [os_error_code='2']"),
        TimeoutError("Timeout waiting for key"),
        Exception("Encountered error while writing array index"),
    ],
)
def test_any_error_of_a_save_to_a_full_disk_is_one_line(tmp_path, monkeypatch, error):
    """Orbax writes in several threads, and may raise what another one's failed write caused."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fail(*_, **__):
        raise error

    with open_checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._orbax, "save", fail)
        with preserved_limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))  # stands for a full disk
            checkpoints.save(1, STATE, META)
            with pytest.raises(UserError, match=f"{tmp_path} cannot be written: File too") as full:
                checkpoints.wait()
        assert "\n" not in str(full.value) and not any(tmp_path.iterdir())
        checkpoints.save(1, STATE, META)
        with pytest.raises(type(error)) as raised:  # there is space, so this is another error
            checkpoints.wait()
        assert raised.value is error


@contextlib.contextmanager
def preserved_limit():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_folders_that_cannot_be_made_end_a_save_at_once(tmp_path, monkeypatch):
    """As when a file system has no inodes left, or a user's quota of files is used up."""
    makedirs, mkdir = os.makedirs, os.mkdir

    def fail(make):
        def wrapped(path, *args, **kwargs):
            if "orbax-checkpoint-tmp/" in os.fspath(path):
                raise OSError(28, "No space left on device", os.fspath(path))
            make(path, *args, **kwargs)

        return wrapped

    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, STATE, META)
        checkpoints.wait()
        status = list(os.statvfs(tmp_path))
        status[7] = 0  # f_favail, the number of inodes
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(status))
        monkeypatch.setattr(os, "makedirs", fail(makedirs))
        monkeypatch.setattr(os, "mkdir", fail(mkdir))
        start = time.monotonic()
        checkpoints.save(2, STATE, META)
        with pytest.raises(UserError, match=r"No space left .* \(it cannot hold more files\)"):
            checkpoints.wait()
    assert time.monotonic() - start < 5.0
    # None is left to keep the process from ending: they would wait for five minutes.
    assert not any(type(t).__module__.startswith("orbax") for t in threading.enumerate())
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    monkeypatch.undo()
    assert restore_latest(tmp_path) == 1


FULL_DISK = """
import resource, sys
import jax
from cifar_jax.errors import UserError
from cifar_jax.run.checkpoint import open_checkpoints
from cifar_jax.runtime import entry

def main():
    state = {i: jax.random.normal(jax.random.key(i), (256, 256)) for i in range(6)}
    with open_checkpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(1, state, {})
    for limit in 3 * (300, 1000, 3000, 30_000, 100_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with open_checkpoints(sys.argv[1]) as checkpoints:
                checkpoints.save(2, state, {})
        except UserError as error:
            print(f"error: {error}", flush=True)
    return 0

entry.run_tool(main)
"""


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_is_one_line(tmp_path):
    """A limit to the size of files stands for the disk: writes fail in the middle of a save."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tiny.ROOT), "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )
    line = f"error: {tmp_path} cannot be written: File too large. Once it can be written, the same"
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout.splitlines() == 15 * [f"{line} command continues"]
    assert storage.saved_steps(tmp_path) == [1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the workdir of a complete run of two epochs, the first of which is the better one."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    config = tiny.make_config(
        selected_on="test", optim__schedule="step", optim__step_epochs=(1,),
        optim__step_factor=1e3, model=ConfigDict({"name": "cnn_small"}),
    )  # fmt: skip
    assert tiny.train(config, folder)["best_epoch"] == 1
    return config, folder


@pytest.fixture
def copy(run, tmp_path):
    """Returns the config of `run` and a copy of its workdir."""
    config, folder = run
    shutil.copytree(folder, tmp_path / "copy")
    return config, tmp_path / "copy"


def test_damage_to_the_latest_checkpoint_costs_an_epoch_and_nothing_else(run, copy, capsys):
    config, folder = copy
    (folder / "summary.json").unlink()
    meta = folder / "checkpoints" / "8" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("0.", "1.", 1))
    tiny.train(config, folder)
    assert "step 4 restored" in capsys.readouterr().out
    assert_same_run(folder, run[1])


def test_damaged_metrics_are_neither_used_nor_kept(run, copy):
    """The rows are in the checkpoint too; reports, which read the file, refuse it."""
    config, folder = copy
    metrics = folder / "metrics.csv"
    lines = metrics.read_text().splitlines()
    first_loss = lines[1].split(",")[3]
    metrics.write_text(metrics.read_text().replace(first_loss, "lost", 1))
    with pytest.raises(UserError, match=f"{metrics}, line 2: train_loss must be a number.*'lost'"):
        read(folder)
    assert predict.predict(restore.from_workdir(folder), tiny.dataset().test.images[:1])
    (folder / "summary.json").unlink()
    tiny.train(config, folder)
    assert_same_run(folder, run[1])


def test_damage_to_the_reported_checkpoint_is_an_error(copy, capsys):
    config, folder = copy
    (folder / "checkpoints" / "4" / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read"):
        predict.predict(restore.from_workdir(folder), tiny.dataset().test.images[:1])
    (folder / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read"):
        tiny.train(config, folder)
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] == 1


@pytest.mark.parametrize(
    "change",
    [
        dict(rows=3), dict(rows=[{"epoch": "1", "step": 4}]), dict(seconds=None),
        dict(step_times=["1"]), dict(callbacks=[]), dict(mean=["a"]), dict(classes=[1]),
    ],
)  # fmt: skip
def test_meta_of_another_structure_is_invalid(change):
    meta = {"rows": [{"epoch": 1, "step": 4}], "seconds": 0.5, "step_times": [1.5], "callbacks": {}}
    assert checkpoint_meta.is_valid(meta) and not checkpoint_meta.is_valid(meta | change)
    assert not checkpoint_meta.is_valid({})


def test_a_run_without_a_valid_meta_is_refused(copy):
    config, folder = copy
    (folder / "summary.json").unlink()
    for step in ("4", "8"):
        (folder / "checkpoints" / step / "meta" / "metadata").write_text("{}")
    with pytest.raises(UserError, match="lacks required fields"):
        predict.predict(restore.from_workdir(folder), tiny.dataset().test.images[:1])
    with pytest.raises(UserError, match=f"remove {folder / 'checkpoints'}"):
        tiny.train(config, folder)


def test_lost_predictions_are_rebuilt_and_the_summary_is_kept(copy):
    config, folder = copy
    summary = (folder / "summary.json").read_bytes()
    expected = predictions.read(folder / "predictions.npz")
    (folder / "predictions.npz").write_bytes(b"PK\x03\x04")
    tiny.train(config, folder)
    np.testing.assert_array_equal(
        predictions.read(folder / "predictions.npz").logits, expected.logits
    )
    assert (folder / "summary.json").read_bytes() == summary


@pytest.mark.parametrize(
    ("field", "value"),
    [("test_accuracy", None), ("step_time_ms", {"median": None})],
)
def test_summaries_with_other_values_are_refused(copy, field, value):
    config, folder = copy
    assert workdir.check(config, folder) is not None
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {field: value}))
    with pytest.raises(UserError, match=rf"summary\.json: {field} must be"):
        read(folder)
    assert workdir.check(config, folder) is None  # so the command rebuilds it


def test_a_checkpoint_is_restored_without_its_list_of_arrays(two_checkpoints, monkeypatch):
    """Only the explanation of why another network does not fit needs it."""
    monkeypatch.setattr(checkpoint_reader.ocp.Checkpointer, "metadata", lambda *_: None)
    with open_checkpoints(two_checkpoints, read_only=True) as checkpoints:
        assert checkpoints.restore(3, STATE, SHARDING)[1] == META
        with pytest.raises(ValueError, match="do not match"):
            checkpoints.restore(3, {"other": STATE["w"]}, SHARDING)


def test_a_file_system_that_fails_deletes_no_checkpoint(copy, monkeypatch):
    """TensorStore reports a failing disk by a ValueError, like a damaged file."""
    config, folder = copy
    steps = storage.saved_steps(folder / "checkpoints")

    def fail(*_, **__):
        raise ValueError("Error reading \"x\": Input/output error [os_error_code='5']")

    monkeypatch.setattr(checkpoint_reader.ocp.Checkpointer, "restore", fail)
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        tiny.train(config, folder)
    assert storage.saved_steps(folder / "checkpoints") == steps
