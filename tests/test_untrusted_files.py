"""Checks that data files are only read: nothing in them is run, unpickled or written elsewhere."""

import ast
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from array_record.python import array_record_module
from fake_cifar import shrink, use_tfrecords, write
from PIL import Image
from tensorboardX.record_writer import RecordWriter

from benchmarks.gpu_suite import collect
from cifar_jax.data import archive, builders, cache, prepared
from cifar_jax.errors import UserError
from cifar_jax.run import predictions

# Modules that run programs or code, load libraries, or unpickle or import what a file names.
MODULES = {
    *("cloudpickle", "ctypes", "dill", "h5py", "importlib", "joblib", "marshal", "msgpack"),
    *("multiprocessing", "pickle", "runpy", "shelve", "subprocess", "yaml"),
}
# Calls that run code or programs. A call is safe if one of its keyword arguments starts
# with the given text.
CALLS = {
    **dict.fromkeys(("eval", "exec", "compile", "__import__")),
    **dict.fromkeys(("os.system", "os.popen", "os.startfile", "os.execv", "os.execve")),
    **dict.fromkeys(("os.posix_spawn", "os.spawnv", "shutil.unpack_archive", "pandas.read_pickle")),
    "np.load": "allow_pickle=False",
    "numpy.load": "allow_pickle=False",
    "torch.load": "weights_only=True",
    "Image.open": "formats=",  # some of Pillow's formats start programs
    "tar.extract": "filter='data'",
    "tar.extractall": "filter='data'",
}
ALLOWED = {
    ("benchmarks/accuracy/jobs.py", "subprocess"): "starts cifar_jax.main and nvidia-smi",
    ("benchmarks/epoch/__main__.py", "subprocess"): "handles an exception",
    ("benchmarks/epoch/measure.py", "importlib"): "reads versions of packages",
    ("benchmarks/epoch/measure.py", "subprocess"): "starts itself",
    ("benchmarks/gpu_suite/stages.py", "importlib"): "finds out whether torch is installed",
    ("benchmarks/gpu_suite/stages.py", "subprocess"): "starts nvidia-smi and, as documented, a "
    "script unpack.py in --data_dir",
    ("benchmarks/gpu_suite/suite.py", "subprocess"): "starts benchmarks",
    ("benchmarks/harness.py", "importlib"): "reads versions of packages and finds out which exist",
    ("benchmarks/torch_models/__init__.py", "importlib"): "imports the network named in the code",
    ("benchmarks/versus_torch/subprocess_contender.py", "multiprocessing"): "talks to its child",
    ("cifar_jax/config/file.py", "runpy"): "runs the config file, which is a program",
    ("cifar_jax/gpu_graph.py", "subprocess"): "starts itself",
    ("cifar_jax/run/trackers.py", "importlib"): "finds out which trackers are installed",
    ("cifar_jax/runtime/compiler.py", "ctypes"): "calls malloc_trim of the C library",
    ("cifar_jax/runtime/distributed.py", "subprocess"): "starts a Python that prints a message",
    ("cifar_jax/runtime/environment.py", "importlib"): "reads versions of packages",
    ("cifar_jax/runtime/environment.py", "subprocess"): "starts git describe",
    ("cifar_jax/runtime/huge_pages.py", "os.execv"): "starts itself",
    ("cifar_jax/transfer/keras_hdf5.py", "h5py"): "reads pretrained weights, only from arrays "
    "of numbers in the file itself",
}


def dangers(source: str) -> set[str]:
    """Returns the names in MODULES and CALLS that a program uses."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & CALLS.keys() | {node.module.partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in CALLS:
            keywords = [f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords]
            needed = CALLS[name]
            if needed is None or not any(keyword.startswith(needed) for keyword in keywords):
                found.add(name)
    return found


def test_dangerous_modules_and_calls_are_used_only_where_there_is_a_reason():
    found = set()
    for folder in ("benchmarks", "cifar_jax", "configs"):
        for path in sorted((tiny.ROOT / folder).rglob("*.py")):
            name = path.relative_to(tiny.ROOT).as_posix()
            found |= {(name, danger) for danger in dangers(path.read_text())}
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from importlib.metadata import version", "importlib"),
        ("from os import system", "os.system"),
        ("a = [eval(x) for x in y]", "eval"),
        ("np.load(path)", "np.load"),
        ("np.load(path, allow_pickle=True)", "np.load"),
        ("tar.extractall(folder)", "tar.extractall"),
        ("Image.open(path)", "Image.open"),
    ],
)
def test_dangers_are_found(source, danger):
    assert dangers(source) == {danger}
    assert not dangers("np.load(path, allow_pickle=False); Image.open(path, formats=['PNG'])")


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """Fails the test if what it yields is unpickled."""
    shrink(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    yield Payload(tmp_path / "unpickled")
    assert not (tmp_path / "unpickled").exists()


def test_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "unpickled")))
    assert (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("field", ["logits", "class_names"])
def test_predictions_are_not_unpickled(payload, tmp_path, field):
    path = tmp_path / "predictions.npz"
    predictions.write(path, np.eye(2, dtype=np.float32), np.arange(2), ("a", "b"))
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {field: np.array([payload], object)})
    with pytest.raises(UserError, match=r"predictions\.npz cannot be read: Object arrays cannot"):
        predictions.read(path)
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(UserError, match=r"predictions\.npz cannot be read: "):
        predictions.read(path)


def _object_array(payload, arrays):
    return lambda file: np.savez(file, **arrays | {"train_fine": np.array([payload], object)})


def _object_fingerprint(payload, arrays):
    return lambda file: np.savez(file, **arrays | {"fingerprint": np.array(payload, object)})


def _pickle(payload, arrays):
    return lambda file: pickle.dump(payload, file)


def _single_array(payload, arrays):
    return lambda file: np.save(file, arrays["train_images"])


@pytest.mark.parametrize("damage", [_object_array, _object_fingerprint, _pickle, _single_array])
def test_decoded_cache_is_not_unpickled(payload, tmp_path, damage):
    fake = write("cifar100", tmp_path / "raw")
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    cache.load(directory, prepared.decode)
    path = tmp_path / "tfds/.cifar_jax/cifar100-3.0.2.npz"
    write_damaged = damage(payload, dict(np.load(path)))
    with path.open("wb") as file:
        write_damaged(file)
    rebuilt = cache.load(directory, prepared.decode)
    np.testing.assert_array_equal(rebuilt["train_images"], fake.images["train"])


def test_archive_of_pickles_is_refused(payload, tmp_path):
    """The layout of cifar-10-python.tar.gz, which people download by mistake."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(payload))
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    for source in (path, folder, tmp_path):
        with pytest.raises(UserError, match=r"does not contain .*expected the binary version"):
            archive.read("cifar10", source)


def _write_tar(path: Path, contents: dict[str, bytes], links: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_archive_is_read_without_writing_its_members(tmp_path, monkeypatch):
    shrink(monkeypatch)
    fake = write("cifar100", tmp_path / "raw")
    contents = {f"../../{path.name}": path.read_bytes() for path in fake.folder.iterdir()}
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    _write_tar(folder / "data.tar.gz", contents, {"train.bin": "/etc/passwd"})
    raw = archive.read("cifar100", folder / "data.tar.gz")
    np.testing.assert_array_equal(raw.images["train"], fake.images["train"])
    assert [path.name for path in folder.iterdir()] == ["data.tar.gz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "raw"]


@pytest.mark.parametrize("name", ["../summary.json", "/tmp/../{outside}", "link/summary.json"])
def test_logs_are_not_unpacked_outside_their_folder(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    name = name.format(outside=outside.relative_to("/") / "summary.json")
    path = _write_tar(tmp_path / "logs.tar.gz", {name: b"{}"}, {"link": str(outside)})
    (tmp_path / "logs").mkdir()
    try:
        collect.unpack(path, tmp_path / "logs")
    except UserError as error:
        assert "is damaged" in str(error)
    assert not any(outside.iterdir()) and not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_features_import_no_module_that_a_file_names(tmp_path, monkeypatch, key):
    shrink(monkeypatch)
    fake = write("cifar100", tmp_path / "raw")
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    (tmp_path / "stranger.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    features = {key: "stranger.Feature", "content": {}, "featuresDict": {"features": {}}}
    (directory / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"names stranger\.Feature, which is not a feature of TFDS"):
        prepared.decode(directory)
    assert not (tmp_path / "ran").exists()


def _encoded(format: str, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "match"),
    [
        pytest.param(_encoded("EPS"), "is neither PNG nor JPEG", id="EPS"),  # starts Ghostscript
        pytest.param(_encoded("PNG", (33, 32)), "must .* got RGB and 33x32", id="size"),
        pytest.param(_encoded("PNG", mode="L"), "must .* got L and 32x32", id="gray"),
        pytest.param(_encoded("PNG")[:-30], "cannot be read: ", id="truncated"),
    ],
)
@pytest.mark.parametrize("is_tfrecord", [False, True])
def test_images_of_other_formats_are_not_decoded(tmp_path, monkeypatch, image, match, is_tfrecord):
    shrink(monkeypatch)
    fake = write("cifar100", tmp_path / "raw")
    directory = builders.prepare("cifar100", tmp_path / "tfds", fake.folder)
    if is_tfrecord:
        use_tfrecords(directory)
    (shard,) = directory.glob("*train*")
    features = builders.Cifar100(data_dir=tmp_path).info.features
    labels = {"label": 0, "coarse_label": 0, "id": "train_00007"}
    features["image"].encode_example = lambda encoded: encoded
    record = features.serialize_example(labels | {"image": image})
    shard.unlink()
    if is_tfrecord:
        writer = RecordWriter(str(shard))
    else:
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    for _ in range(8):  # dataset_info.json has this length
        writer.write(record)
    writer.close()
    with pytest.raises(UserError, match=f"image 7 of train {match}"):
        prepared.decode(directory)
