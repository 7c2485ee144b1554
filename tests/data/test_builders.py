import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from fake_cifar import make_official, pack, shrink, write

from cifar_jax.data import archive, builders, download, prepared
from cifar_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def offline(monkeypatch):
    def no_network(*args):
        raise UserError("no network in this test")

    monkeypatch.setattr(download, "fetch", no_network)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tfds_reads_every_bit(tmp_path, name):
    fake = write(name, tmp_path)
    directory = builders.prepare(name, tmp_path, fake.folder)
    reference = tfds.builder(name, data_dir=tmp_path, file_format="array_record")
    assert directory == tmp_path / name / str(reference.version) and reference.is_prepared()
    assert reference.info.splits["train"].num_examples == len(fake.images["train"])
    for label, names in fake.names.items():
        assert reference.info.features[label].names == names
    for split, source in reference.as_data_source().items():
        assert len(source) == len(fake.images[split])
        for example in source:
            i = int(example["id"].removeprefix(f"{split}_".encode()))
            np.testing.assert_array_equal(example["image"], fake.images[split][i])
            for label, column in fake.labels[split].items():
                assert example[label] == column[i]
    ids = [e["id"] for e in tfds.data_source(name, split="train", data_dir=tmp_path)]
    assert sorted(ids) != ids  # shuffled, as TFDS does


def test_reading_a_source_needs_no_network(tmp_path, monkeypatch):
    fake = write("cifar100", tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("connected to the network"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("looked up a name"))
    builders.prepare("cifar100", tmp_path, fake.folder)


def test_existing_directory_is_kept_unless_overwrite_is_set(tmp_path):
    first, second = (
        write("cifar10", tmp_path / "a", seed=1),
        write("cifar10", tmp_path / "b", seed=2),
    )
    directory = builders.prepare("cifar10", tmp_path, first.folder)
    assert builders.prepare("cifar10", tmp_path, second.folder) == directory
    np.testing.assert_array_equal(prepared.decode(directory)["test_images"], first.images["test"])
    assert builders.prepare("cifar10", tmp_path, second.folder, overwrite=True) == directory
    np.testing.assert_array_equal(prepared.decode(directory)["test_images"], second.images["test"])


def test_missing_source_does_not_remove_an_existing_directory(tmp_path):
    fake = write("cifar10", tmp_path)
    directory = builders.prepare("cifar10", tmp_path, fake.folder)
    with pytest.raises(UserError, match="does not exist"):
        builders.prepare("cifar10", tmp_path, tmp_path / "nowhere", overwrite=True)
    assert prepared.find("cifar10", tmp_path) == directory


def test_unofficial_archive_prints_a_note(tmp_path, capsys):
    path = pack(write("cifar10", tmp_path).folder)
    builders.prepare("cifar10", tmp_path / "tfds", path)
    assert (
        f"note: {path} is not the official cifar10 (differences in one of data"
        in capsys.readouterr().out
    )


def test_official_archive_is_downloaded_once_and_kept(tmp_path, monkeypatch, capsys):
    fake = write("cifar10", tmp_path)
    make_official(monkeypatch, "cifar10", fake)
    path = pack(fake.folder)
    official = archive.ARCHIVES["cifar10"]._replace(sha256=download.digest(path))
    monkeypatch.setitem(archive.ARCHIVES, "cifar10", official)
    fetched = []

    def fetch(url, destination, sha256):
        fetched.append((url, sha256))
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, destination)

    monkeypatch.setattr(download, "fetch", fetch)
    builders.prepare("cifar10", tmp_path / "tfds")
    builders.prepare("cifar10", tmp_path / "tfds", overwrite=True)
    assert fetched == [(official.url, official.sha256)]
    assert (tmp_path / "tfds/downloads/cifar-10-binary.tar.gz").is_file()
    assert "note" not in capsys.readouterr().out


def test_download_error_names_the_alternatives(tmp_path, offline):
    with pytest.raises(UserError) as error:
        builders.prepare("cifar100", tmp_path)
    message = str(error.value)
    assert "\n" not in message and "no network in this test" in message
    assert f"--source ARCHIVE_OR_FOLDER --data_dir {tmp_path}" in message
    assert "python -m cifar_jax.prepare cifar100 --source" in message
    assert "--config.data.dir=" in message and "--config.data.name=synthetic" in message


def test_unwritable_directory_is_rejected(tmp_path):
    fake = write("cifar10", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write cifar10 to .*file: Not a directory"):
        builders.prepare("cifar10", tmp_path / "file", fake.folder)


_KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
import pytest
from fake_cifar import shrink
shrink(pytest.MonkeyPatch())
from cifar_jax.data import builders
def killed(self, split, generate=builders._FromArchive._generate_examples):
    for i, example in enumerate(generate(self, split)):
        if split == "test" and i == 2:
            os._exit(9)
        yield example
builders._FromArchive._generate_examples = killed
builders.prepare("cifar100", __import__("pathlib").Path({data_dir!r}), {source!r})
"""


def test_killed_run_leaves_no_directory_that_counts_as_prepared(tmp_path):
    fake = write("cifar100", tmp_path)
    script = _KILLED.format(
        tests=str(tiny.ROOT / "tests"), data_dir=str(tmp_path), source=str(fake.folder)
    )
    killed = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()
    (leftover,) = (tmp_path / "cifar100").iterdir()
    assert leftover.name.startswith("incomplete.") and prepared.find("cifar100", tmp_path) is None
    an_hour_ago = time.time() - 3601
    os.utime(leftover, (an_hour_ago, an_hour_ago))
    directory = builders.prepare("cifar100", tmp_path, fake.folder)
    assert list((tmp_path / "cifar100").iterdir()) == [directory]
    np.testing.assert_array_equal(prepared.decode(directory)["train_images"], fake.images["train"])


_KILLED_WHILE_REPLACING = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pytest
from fake_cifar import shrink
shrink(pytest.MonkeyPatch())
from cifar_jax.data import builders
def killed(self, target, rename=Path.rename):
    if Path(target).parent == Path({data_dir!r}, "cifar100"):
        os._exit(9)
    return rename(self, target)
Path.rename = killed
builders.prepare("cifar100", Path({data_dir!r}), {source!r}, overwrite=True)
"""


def test_overwriting_that_was_killed_between_its_renames_is_finished(tmp_path):
    """Killed after the old files were moved away, and before the new ones took their place."""
    old, new = (write("cifar100", tmp_path / str(seed), seed=seed) for seed in (1, 2))
    data_dir = tmp_path / "tfds"
    directory = builders.prepare("cifar100", data_dir, old.folder)
    script = _KILLED_WHILE_REPLACING.format(
        tests=str(tiny.ROOT / "tests"), data_dir=str(data_dir), source=str(new.folder)
    )
    killed = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()
    assert not directory.exists()
    (leftover,) = directory.parent.iterdir()
    os.utime(leftover, (time.time() - 3601,) * 2)  # old enough to be removed
    other = tmp_path / "other"
    shutil.copytree(data_dir, other)  # with the times of its files
    with pytest.MonkeyPatch.context() as patch:  # fails once leftovers have been removed
        patch.setattr(shutil, "disk_usage", _usage(0))
        with pytest.raises(UserError, match="cifar100 needs"):
            builders.prepare("cifar100", other, new.folder, overwrite=True)
    for folder in (data_dir, other):
        found = prepared.find("cifar100", folder)
        assert found == folder / directory.relative_to(data_dir)
        np.testing.assert_array_equal(prepared.decode(found)["test_images"], new.images["test"])
        builders.prepare("cifar100", folder, new.folder, overwrite=True)


def test_first_of_two_concurrent_calls_to_finish_wins(tmp_path, monkeypatch):
    slow, fast = (
        write("cifar10", tmp_path / "a", seed=1),
        write("cifar10", tmp_path / "b", seed=2),
    )
    generate = builders._FromArchive._generate_examples

    def overtaken(self, split):
        monkeypatch.setattr(builders._FromArchive, "_generate_examples", generate)
        builders.prepare("cifar10", tmp_path, fast.folder)
        return generate(self, split)

    monkeypatch.setattr(builders._FromArchive, "_generate_examples", overtaken)
    directory = builders.prepare("cifar10", tmp_path, slow.folder)
    np.testing.assert_array_equal(prepared.decode(directory)["test_images"], fast.images["test"])
    assert list((tmp_path / "cifar10").iterdir()) == [directory]


def _tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_only_the_data_set_is_left(tmp_path):
    fake = write("cifar10", tmp_path / "raw")
    directory = builders.prepare("cifar10", tmp_path / "new/tfds", fake.folder)
    assert list((tmp_path / "new/tfds").iterdir()) == [directory.parent]
    assert list(directory.parent.iterdir()) == [directory]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_leaves_what_was_there(tmp_path, monkeypatch, error, overwrite):
    fake = write("cifar10", tmp_path / "raw")
    data_dir = tmp_path / "new/tfds"
    if overwrite:
        builders.prepare("cifar10", data_dir, fake.folder)
    before = _tree(tmp_path)

    def fail(self, split, generate=builders._FromArchive._generate_examples):
        yield from generate(self, split)
        raise error

    monkeypatch.setattr(builders._FromArchive, "_generate_examples", fail)
    with pytest.raises((UserError, KeyboardInterrupt)):
        builders.prepare("cifar10", data_dir, fake.folder, overwrite=overwrite)
    assert _tree(tmp_path) == before
    if overwrite:
        images = prepared.decode(prepared.find("cifar10", data_dir))["test_images"]
        np.testing.assert_array_equal(images, fake.images["test"])


def test_failed_download_leaves_no_folder(tmp_path, offline):
    with pytest.raises(UserError, match="no network in this test"):
        builders.prepare("cifar100", tmp_path / "new/tfds")
    assert _tree(tmp_path) == []


def _usage(free):
    return lambda path: shutil._ntuple_diskusage(10**12, 10**12 - free, free)


def test_too_little_space_is_reported_before_anything_is_written(tmp_path, monkeypatch, offline):
    fake = write("cifar10", tmp_path / "raw")
    monkeypatch.undo()  # restores the real record counts
    monkeypatch.setattr(builders.archive, "read", lambda *_: prepared.archive.Raw({}, {}, {}, []))
    monkeypatch.setattr(shutil, "disk_usage", _usage(20_000_000))
    with pytest.raises(
        UserError, match=r"cifar10 needs 144 MB .* 20 MB are free: .* another 124 MB"
    ):
        builders.prepare("cifar10", tmp_path / "new", fake.folder)
    with pytest.raises(
        UserError, match=r"cifar10 needs 315 MB .* 20 MB are free: .* another 295 MB"
    ):
        builders.prepare("cifar10", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_write_error_of_array_record_is_reported(tmp_path):
    fake = write("cifar10", tmp_path / "raw")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write cifar10 to .*/tfds: File too large$"):
            builders.prepare("cifar10", tmp_path / "tfds", fake.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "tfds").exists()
