"""Damaged files give the same arrays, a note that names the file, or a UserError.

`python -m pytest tests/data/test_damaged_files.py --mutations 10000 -s` tries more than the suite.
"""

import contextlib
import shutil
import signal
import warnings

import numpy as np
import pytest
from fake_cifar import make_official, pack, shrink, use_tfrecords, write

from cifar_jax.data import archive, builders, cache, prepared
from cifar_jax.errors import UserError

_SECONDS = 20  # per file, on a busy machine; a sound one takes 0.02


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns `content` with one to three random kinds of damage."""
    for _ in range(rng.integers(1, 4)):
        size = len(content)
        i, j = sorted(rng.integers(0, size + 1, 2).tolist())
        if rng.random() < 0.5:  # a short range
            j = min(size, i + int(rng.integers(1, 16)))
        before, part, after = content[:i], content[i:j], content[j:]
        kind = rng.integers(0, 8)
        if kind == 0:  # a flipped bit
            part = bytes([part[0] ^ 1 << int(rng.integers(0, 8))]) + part[1:] if part else part
        elif kind == 1:  # never written
            part = bytes(len(part))
        elif kind == 2:
            part = rng.bytes(len(part))
        elif kind == 3:  # the largest and smallest numbers
            part = (b"\xff" if rng.random() < 0.5 else b"\x7f") * len(part)
        elif kind == 4:  # truncated
            part = after = b""
        elif kind == 5:
            part = b""
        elif kind == 6:
            part = part * int(rng.integers(2, 4))
        else:  # moved to the start
            before, part = part, before
        content = before + part + after
    return content


@contextlib.contextmanager
def deadline():
    def late(signum, frame):
        pytest.fail(f"took more than {_SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _folder(fake, tmp_path):
    files = sorted(fake.folder.iterdir())
    return files, lambda: archive.read("cifar100", fake.folder).arrays()


def _tar(fake, tmp_path):
    path = pack(fake.folder)
    return [path], lambda: archive.read("cifar100", path).arrays()


def _tar_without_compression(fake, tmp_path):
    path = pack(fake.folder, "w:")
    return [path], lambda: archive.read("cifar100", path).arrays()


def _array_record(fake, tmp_path):
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    return sorted(directory.iterdir()), lambda: prepared.decode(directory)


def _tfrecord(fake, tmp_path):
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    use_tfrecords(directory)
    return sorted(directory.iterdir()), lambda: prepared.decode(directory)


def _cache(fake, tmp_path):
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    sound = cache.load(directory, prepared.decode)
    (path,) = (tmp_path / "tfds/.cifar_jax").iterdir()
    return [path], lambda: cache.load(directory, lambda _: sound)


@pytest.mark.scalable
@pytest.mark.parametrize(
    "reader", [_folder, _tar, _tar_without_compression, _array_record, _tfrecord, _cache]
)
def test_damage_is_found(tmp_path, monkeypatch, pytestconfig, reader):
    shrink(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    fake = write("cifar100", tmp_path / "raw")
    make_official(monkeypatch, "cifar100", fake)
    files, read = reader(fake, tmp_path)
    expected, outcomes = read(), {"same": 0, "note": 0, "error": 0}
    assert not len(expected["differences"])
    for seed in range(pytestconfig.getoption("mutations")):
        rng = np.random.default_rng(seed)
        path = files[rng.integers(len(files))]
        sound = path.read_bytes()
        path.write_bytes(mutate(sound, rng))
        try:
            with deadline(), warnings.catch_warnings(action="ignore"):
                found = read()
            if len(found["differences"]):
                outcomes["note"] += 1
                assert path.suffix in (".bin", ".txt", ".tar"), "other formats have checksums"
            else:
                outcomes["same"] += 1
                for key, array in expected.items():
                    np.testing.assert_array_equal(found[key], array, err_msg=f"seed {seed}: {key}")
        except UserError as e:
            outcomes["error"] += 1
            assert "\n" not in str(e) and len(str(e)) < 900, f"seed {seed}: {e}"
        except Exception as e:
            shutil.copy(path, tmp_path / "damaged")
            raise AssertionError(f"seed {seed} for {path.name}, kept in {tmp_path}/damaged") from e
        path.write_bytes(sound)
    assert sum(outcomes.values()) - outcomes["same"] > 0 or reader is _cache, outcomes
