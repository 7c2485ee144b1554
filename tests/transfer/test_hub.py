import hashlib
import os
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from cifar_jax import transfer
from cifar_jax.data import download
from cifar_jax.errors import UserError
from cifar_jax.transfer import hub


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def test_keras_file_is_downloaded_once_and_verified(home, monkeypatch):
    content, calls = b"weights", []
    facts = hub._KerasFile("vgg16", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(hub._KERAS_FILES, "vgg16", facts)

    def fetch(url, path, checksum, algorithm):
        calls.append((url, checksum, algorithm))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    monkeypatch.setattr(download, "fetch", fetch)
    path = hub.from_keras("vgg16")
    assert path == home / "models/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{path.name}"
    assert hub.from_keras("vgg16") == path and calls == [(url, facts.md5, "md5")]
    path.write_bytes(b"others")
    with pytest.raises(UserError, match=r"is not the file .*Move it away, or use it with --config"):
        hub.from_keras("vgg16")


@pytest.mark.parametrize("name", hub._KERAS_FILES)
def test_checksums_are_those_of_keras(name):
    keras = find_spec("keras")  # importing Keras would choose its backend for all tests
    if keras is None:
        pytest.skip("needs Keras")
    folder = Path(keras.origin).parent / "src/applications"
    facts = hub._KERAS_FILES[name]
    source = (folder / ("resnet.py" if name == "resnet50" else f"{name}.py")).read_text()
    source = re.sub(r'"\s+"', "", source)  # joins the parts of long strings
    assert f'"{facts.md5}"' in source and f"keras-applications/{facts.folder}/" in source


def test_without_a_network_the_error_names_both_ways_out(home, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError) as error:
        transfer.load("keras", "xception", None, None)
    assert error.type is transfer.Unavailable
    text = str(error.value)
    assert "xception_weights_tf_dim_ordering_tf_kernels_notop.h5" in text
    assert f"copy it to {home}/models/" in text and "--config.transfer.weights=FILE" in text


def test_keras_lacks_resnet18():
    with pytest.raises(UserError, match=r"unknown network of keras\.applications 'resnet18'"):
        hub.from_keras("resnet18")


@pytest.mark.parametrize("name", ["hf:", "hf:timm", "hf:a/b/c", "hf:a/b@", "hf:a/b@x y"])
def test_invalid_hub_names(name):
    with pytest.raises(UserError, match=r"is not of the form hf:OWNER/REPO"):
        hub.from_hugging_face(name)


def make_cache(folder, content, name=None):
    """Writes a file to the cache of huggingface_hub, as a download would."""
    repository = folder / "models--timm--resnet18.tv_in1k"
    commit = "0123456789" * 4
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    for path in (snapshot, blobs, repository / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    (repository / "refs/main").write_text(commit)
    blob = blobs / (name or hashlib.sha256(content).hexdigest())
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    return snapshot / "model.safetensors"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_hub_file_comes_from_the_cache_and_is_verified(offline):
    path = make_cache(offline, b"weights")
    assert hub.from_hugging_face("hf:timm/resnet18.tv_in1k") == path
    assert hub.from_hugging_face("hf:timm/resnet18.tv_in1k@main") == path
    path.resolve().write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: its SHA-256 is not "):
        hub.from_hugging_face("hf:timm/resnet18.tv_in1k")


def test_hub_without_a_network_or_cache(offline):
    with pytest.raises(UserError) as error:
        hub.from_hugging_face("hf:timm/resnet18.tv_in1k@v1")
    assert error.type is transfer.Unavailable
    text = str(error.value)
    assert "hf download timm/resnet18.tv_in1k model.safetensors --revision v1" in text
    assert "--config.transfer.weights=FILE" in text


def test_hub_fails_soon_without_a_network(offline, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UserError, match="is not in the cache, and there is no connection to the"):
        hub.from_hugging_face("hf:timm/resnet18.tv_in1k")
    assert time.monotonic() - started < 5  # huggingface_hub itself retries for 40 s


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("EntryNotFoundError", r"timm/a has no model\.safetensors; PyTorch's pickles are not"),
        ("RepositoryNotFoundError", "has no repository timm/a, or it is private"),
        ("RevisionNotFoundError", "timm/a has no revision v1"),
    ],
)
def test_errors_of_the_hub(monkeypatch, kind, match):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    exception = getattr(pytest.importorskip("huggingface_hub.errors"), kind)

    def raises(*_, **__):
        raise exception.__new__(exception)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raises)
    with pytest.raises(UserError, match=match):
        hub.from_hugging_face("hf:timm/a@v1")
