"""Checks that the network of a workdir is loaded, for the same and for another data set."""

import shutil
import tarfile

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from pretrained import Network

from cifar_jax.errors import UserError
from cifar_jax.run import checksums
from cifar_jax.trained import network_file, restore
from cifar_jax.transfer import run_weights

OPTIONS = dict(depths=(1, 1), width=4)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns the workdir of a run whose reported epoch is the first: later, training diverges."""
    folder = tmp_path_factory.mktemp("transfer") / "run"
    config = tiny.make_config(
        model=ConfigDict(dict(name="resnet18", stem="cifar", conventions="torch") | OPTIONS),
        num_epochs=3, selected_on="test", selected_by="loss", optim__schedule="step",
        optim__step_epochs=(1,), optim__step_factor=1000.0,
    )  # fmt: skip
    assert tiny.train(config, folder)["best_epoch"] == 1
    return folder


@pytest.fixture(scope="module")
def large_head(tmp_path_factory):
    """Returns the workdir of a run whose head has two hidden layers and BatchNorm."""
    folder = tmp_path_factory.mktemp("large_head") / "run"
    layers = (4, "B", "M", 6, "A", 6, "B", 6)
    model = ConfigDict({"name": "vgg16", "layers": layers})
    tiny.train(tiny.make_config(model=model, num_epochs=1), folder)
    return folder


def test_logits_are_those_of_the_reported_epoch(workdir):
    network = Network("resnet18", 10, **OPTIONS)
    found = network.load(workdir)
    assert not found.notes and found.source == f"{workdir} (step 4)"
    images = (np.float32(tiny.dataset().test.images) / 255 - 0.5) / 0.25
    with np.load(workdir / "predictions.npz") as file:
        expected = file["logits"]
    np.testing.assert_allclose(network.logits(found, images), expected, rtol=1e-3, atol=1e-4)
    assert isinstance(jax.tree.leaves(found.params)[0], np.ndarray)


def test_head_of_other_classes_stays_random(workdir):
    found = Network("resnet18", 5, **OPTIONS).load(workdir)
    assert set(found.params) == {"blocks", "bn_stem", "conv_stem"}
    assert "dense.kernel" in found.notes[0]


@pytest.mark.parametrize("is_exported", [False, True])
@pytest.mark.parametrize(
    ("head", "is_loaded"),
    [(("A", 6, "B", 6), True), (("A",), False), (("A", 6), False), (("A", 7, "B", 6), False)],
)
def test_head_of_other_layers_stays_random(large_head, tmp_path, head, is_loaded, is_exported):
    """The last layer alone would fit, but it was trained on the outputs of the other layers."""
    source = large_head
    if is_exported:
        pytest.importorskip("safetensors")
        source = tmp_path / "model.safetensors"
        network_file.write(restore.from_workdir(large_head), source)
    found = Network("vgg16", 10, layers=(4, "B", "M", 6, *head)).load(source)
    assert ("dense" in found.params) == is_loaded == (not found.notes)
    assert set(found.params["layers"]) == ({0, 1, 3, 5, 6, 7} if is_loaded else {0, 1, 3})
    assert set(found.batch_stats["layers"]) == ({1, 6} if is_loaded else {1})
    if not is_loaded:
        assert found.notes[0].startswith("the head is initialized at random, because ")


def test_body_of_other_layers_is_refused(large_head):
    with pytest.raises(UserError, match=r"run .* holds layers\.1\.\w+, .*, which vgg16 does not"):
        Network("vgg16", 10, layers=(4, "M", "M", 6, "A")).load(large_head)


def test_another_network_is_refused(workdir):
    with pytest.raises(UserError, match=r"run .* holds the network 'resnet18', not 'resnet34'"):
        Network("resnet34", 10, **OPTIONS).load(workdir)
    with pytest.raises(UserError, match=r"it lacks blocks\.2\.conv1\.kernel, .*; it holds b"):
        Network("resnet18", 10, depths=(2, 1), width=4).load(workdir)


def test_damaged_checkpoint_is_refused(workdir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(workdir, folder)
    network = Network("resnet18", 10, **OPTIONS)
    files = [p for p in (folder / "checkpoints/4/state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .*copy.* cannot be read"):
        network.load(folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="copy has no checkpoint"):
        network.load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json does not hold a JSON object"):
        network.load(folder)


def test_checksums_are_compared(workdir, monkeypatch):
    monkeypatch.setattr(checksums, "_crc", lambda array: -1)
    with pytest.raises(UserError, match="the checksum of state/batch_stats/blocks/0/bn1/mean, "):
        Network("resnet18", 10, **OPTIONS).load(workdir)


def test_old_workdirs_are_read(tmp_path):
    with tarfile.open(tiny.ROOT / "tests/run/workdir_cb05e25.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    weights = run_weights.read(tmp_path / "workdir")
    assert weights.tensors["layers.0.kernel"].shape == (3, 3, 3, 4)
    assert weights.tensors["layers.1.var"].shape == (4,)
