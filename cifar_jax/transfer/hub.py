"""Downloads pretrained weights by name, from keras.applications and from the Hugging Face Hub."""

import os
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cifar_jax.data import download
from cifar_jax.errors import UserError, unknown
from cifar_jax.transfer.packages import needing

KERAS, HUGGING_FACE = "keras", "hf:"
_FILE = "model.safetensors"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_WITH_A_FILE = "give a file: --config.transfer.weights=FILE"


class Unavailable(UserError):
    """Weights that are chosen by name are not on this machine, and cannot be downloaded."""


class _KerasFile(NamedTuple):
    folder: str
    md5: str


# From keras/src/applications/*.py of Keras 3.15. Keras publishes no other checksums.
_KERAS_FILES = {
    "resnet50": _KerasFile("resnet", "4d473c1dd8becc155b73f8504c6f6626"),
    "vgg16": _KerasFile("vgg16", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": _KerasFile("vgg19", "253f8cb515780f3b799900260a226db6"),
    "xception": _KerasFile("xception", "b0042744bf5b25fce3cb969f33bebb97"),
}


def from_keras(model_name: str) -> Path:
    """Returns the file of keras.applications without a head, from Keras's cache if it is there.

    Raises:
      Unavailable: If the file cannot be downloaded.
      UserError: If keras.applications lacks the network, or the cache holds a different file of
        that name.
    """
    if model_name not in _KERAS_FILES:
        raise unknown("network of keras.applications", model_name, _KERAS_FILES)
    facts = _KERAS_FILES[model_name]
    name = f"{model_name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path, url = home / "models" / name, f"{_KERAS_URL}/{facts.folder}/{name}"
    if path.is_file():
        if (actual := download.digest(path, "md5")) == facts.md5:
            return path
        raise UserError(
            f"{path} is not the file that keras.applications publishes: its MD5 is {actual}, not "
            f"{facts.md5}. Move it away, or use it with --config.transfer.weights={path}"
        )
    print(f"downloading {url} to {path}", flush=True)
    try:
        download.fetch(url, path, facts.md5, algorithm="md5")
    except UserError as error:
        raise Unavailable(
            f"{error}. On a machine with internet access, download that file; then either copy it "
            f"to {path}, or {_WITH_A_FILE}"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def from_hugging_face(weights: str) -> Path:
    """Returns the safetensors file of a repository, from the cache of huggingface_hub if possible.

    Args:
      weights: "hf:OWNER/REPO", or "hf:OWNER/REPO@REVISION" with a branch, tag or commit.

    Raises:
      Unavailable: If the file cannot be downloaded.
      UserError: If the name is invalid, or the repository has no such file.
    """
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", weights)
    if not match:
        raise UserError(f"{weights!r} is not of the form hf:OWNER/REPO or hf:OWNER/REPO@REVISION")
    with needing("downloading from the Hugging Face Hub"):
        from huggingface_hub import errors
    repository, revision = match.groups()
    try:
        path = _cached_or_downloaded(repository, revision)
    # Caught before EntryNotFoundError, of which LocalEntryNotFoundError is a subclass.
    except (UserError, errors.LocalEntryNotFoundError) as error:
        option = f" --revision {revision}" if revision else ""
        raise Unavailable(
            f"{weights} is not in the cache, and there is no connection to the Hugging Face Hub. "
            f"On a machine with internet access, run `hf download {repository} {_FILE}{option}`; "
            f"then either copy its cache, or {_WITH_A_FILE}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(
            f"{repository} has no {_FILE}; PyTorch's pickles are not read, because they can run "
            f"code. Convert them as docs/transfer.md shows, and {_WITH_A_FILE}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the Hugging Face Hub has no repository {repository}, or it is private: run `hf auth "
            "login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{repository} has no revision {revision}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(
            f"{weights} cannot be downloaded: {reason}. Try again, or {_WITH_A_FILE}"
        ) from error
    # In the cache, the name of a large file is its SHA-256.
    expected = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", expected) and download.digest(path) != expected:
        raise UserError(f"{path} is damaged: its SHA-256 is not {expected}. Delete it")
    return path


def _cached_or_downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import constants, errors, hf_hub_download

    get = partial(hf_hub_download, repository, _FILE, revision=revision)
    try:
        return Path(get(local_files_only=True))
    except errors.LocalEntryNotFoundError:
        if not constants.HF_HUB_OFFLINE:
            # Without a network, huggingface_hub would retry for 40 s and print each failure.
            download.probe(constants.ENDPOINT)
        return Path(get())
