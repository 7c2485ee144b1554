import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from fake_cifar import shrink, write

from cifar_jax.data import builders, cache, prepared


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    shrink(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def fake(tmp_path):
    return write("cifar100", tmp_path / "raw")


@pytest.fixture
def directory(tmp_path, fake):
    return builders.prepare("cifar100", tmp_path / "tfds", fake.folder)


@pytest.fixture
def decode():
    """Counts the calls of prepared.decode."""
    return mock.Mock(wraps=prepared.decode)


def _same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


def test_second_load_does_not_decode(directory, decode, tmp_path):
    first, second = cache.load(directory, decode), cache.load(directory, decode)
    assert decode.call_count == 1
    assert _same(first, second) and _same(first, prepared.decode(directory))
    assert [p.name for p in (tmp_path / "tfds/.cifar_jax").iterdir()] == ["cifar100-3.0.2.npz"]
    assert not (tmp_path / "user").exists()


def test_changed_directory_is_decoded_again(directory, decode, tmp_path):
    cache.load(directory, decode)
    other = write("cifar100", tmp_path / "other", seed=1)
    builders.prepare("cifar100", tmp_path / "tfds", other.folder, overwrite=True)
    np.testing.assert_array_equal(
        cache.load(directory, decode)["train_images"], other.images["train"]
    )
    os.utime(directory / "features.json", (1, 1))
    cache.load(directory, decode)
    assert decode.call_count == 3


def _truncate(content):
    return content[: len(content) // 2]


def _flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _not_a_zip_file(content):
    return b"not a zip file"


def _empty(content):
    return b""


def _encrypted_flag(content):
    entry = content.index(b"PK\x01\x02")  # the first entry of the zip file's directory
    return content[: entry + 8] + b"\x01" + content[entry + 9 :]


def _open_brackets(content):
    """NumPy parses the header of an array as Python, before it reads the rest and its checksum."""
    before, name, array = content.partition(b"train_images.npy")
    return before + name + array.replace(b"{'descr'", b"((((((((", 1)


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip_a_bit, _not_a_zip_file, _empty, _encrypted_flag, _open_brackets],
)
def test_corrupt_cache_is_rebuilt(directory, decode, fake, tmp_path, damage):
    cache.load(directory, decode)
    path = tmp_path / "tfds/.cifar_jax/cifar100-3.0.2.npz"
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(
        cache.load(directory, decode)["train_images"], fake.images["train"]
    )
    assert decode.call_count == 2
    cache.load(directory, decode)
    assert decode.call_count == 2


def test_bug_while_reading_keeps_its_traceback(directory, decode, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache.load(directory, decode)


def test_unwritable_data_directory_falls_back_to_the_user_cache(directory, decode, tmp_path):
    (tmp_path / "tfds/.cifar_jax").touch()  # a file in place of the directory
    first, second = cache.load(directory, decode), cache.load(directory, decode)
    assert decode.call_count == 1 and _same(first, second)
    assert len(list((tmp_path / "user/cifar_jax").iterdir())) == 1


def test_no_writable_directory_is_a_warning(directory, decode, fake, tmp_path):
    (tmp_path / "tfds/.cifar_jax").touch()
    (tmp_path / "user").touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match="cannot write the decoded cache"):
            arrays = cache.load(directory, decode)
        np.testing.assert_array_equal(arrays["test_images"], fake.images["test"])
    assert decode.call_count == 2


def test_loading_from_the_cache_imports_neither_tfds_nor_jax(directory, decode, tmp_path):
    cache.load(directory, decode)
    script = (
        "import sys; from cifar_jax import data; "
        f"data.load('cifar100', data_dir={str(tmp_path / 'tfds')!r}); "
        "print({'jax', 'tensorflow_datasets', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
