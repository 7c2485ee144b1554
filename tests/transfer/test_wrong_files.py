"""Checks that files that do not fit are refused, with errors that name the tensor or the file."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from pretrained import TINY_VGG16, Network, keras_vgg16, random_arrays, write_hdf5

from cifar_jax.errors import UserError
from cifar_jax.transfer import packages, safetensors_file

h5py = pytest.importorskip("h5py")
save_file = pytest.importorskip("safetensors.numpy").save_file


@pytest.fixture(scope="module")
def vgg16():
    return Network("vgg16", layers=TINY_VGG16)


@pytest.fixture
def layers(vgg16):
    return keras_vgg16(random_arrays(vgg16.shapes()))


@pytest.fixture
def tensors(vgg16):
    """The body with torchvision's names and axes."""
    arrays = random_arrays(vgg16.shapes())
    positions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    result = {}
    for position, index in zip(positions, sorted({path[1] for path in arrays}), strict=True):
        kernel = arrays["layers", index, "kernel"].transpose(3, 2, 0, 1)
        result[f"features.{position}.weight"] = np.ascontiguousarray(kernel)
        result[f"features.{position}.bias"] = arrays["layers", index, "bias"]
    return result


def refuse(network, path, match):
    with pytest.raises(UserError, match=match):
        network.load(path)


def test_hdf5_with_missing_extra_and_misshapen_arrays(vgg16, layers, tmp_path):
    path = tmp_path / "x.h5"
    conv = layers.pop("block3_conv2")
    write_hdf5(path, layers)
    refuse(vgg16, path, r"x\.h5 .*lacks block3_conv2/kernel, block3_conv2/bias$")
    layers["block3_conv2"] = conv
    layers["block6_conv1"] = conv
    write_hdf5(path, layers)
    refuse(vgg16, path, r"holds block6_conv1/kernel, block6_conv1/bias, which vgg16 does not have")
    del layers["block6_conv1"]
    layers["block3_conv2"] = layers["block4_conv2"]
    write_hdf5(path, layers)
    refuse(
        vgg16, path,
        r"block3_conv2/kernel in .*x\.h5 has the shape \(3, 3, 4, 4\) but layers\.7\.kernel has "
        r"\(3, 3, 3, 3\)",
    )  # fmt: skip


def test_safetensors_with_missing_extra_and_misshapen_arrays(vgg16, tensors, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    vgg16.load(path)
    save_file({k: v for k, v in tensors.items() if k != "features.12.bias"}, path)
    refuse(vgg16, path, r"lacks features\.12\.bias$")
    # Batch normalization would change what the network computes.
    save_file(tensors | {"features.1.running_mean": np.zeros(2, np.float32)}, path)
    refuse(vgg16, path, r"holds features\.1\.running_mean, which vgg16 does not have")
    save_file(tensors | {"features.2.weight": np.zeros((2, 7, 3, 3), np.float32)}, path)
    refuse(vgg16, path, r"features\.2\.weight in .* has the shape \(2, 7, 3, 3\), in our order")
    save_file(tensors | {"features.2.weight": np.zeros(7, np.float32)}, path)
    refuse(vgg16, path, r"features\.2\.weight in .* has the shape \(7,\) but layers\.1\.kernel")
    save_file(tensors | {"features.2.bias": np.zeros(2, np.int64)}, path)
    refuse(vgg16, path, r"features\.2\.bias in .* holds integers \(int64\), not weights")
    save_file(tensors | {"features.2.bias": np.float32([0, np.nan])}, path)
    refuse(vgg16, path, r"features\.2\.bias in .* holds NaN or infinite values")
    save_file(tensors | {"features.2.bias": np.zeros(2, np.uint8)}, path)
    refuse(vgg16, path, r"features\.2\.bias has dtype U8, but weights must be one of F64, F32")


def test_another_network(vgg16, layers, tensors, tmp_path):
    write_hdf5(tmp_path / "x.h5", layers)
    save_file(tensors, tmp_path / "x.safetensors")
    resnet50 = Network("resnet50", width=4)
    refuse(
        resnet50, tmp_path / "x.h5",
        r"not hold resnet50: it holds block1_conv1/kernel, .*, but not conv2_block1_0_conv/kernel",
    )  # fmt: skip
    refuse(
        Network("resnet18", width=4), tmp_path / "x.safetensors",
        r"does not hold resnet18: it holds features\..*, but not layer1\.0\.conv1\.weight",
    )  # fmt: skip
    refuse(Network("resnet18", width=4), tmp_path / "x.h5", "keras.applications has no resnet18")
    refuse(Network("cnn2"), tmp_path / "x.safetensors", "torchvision has no cnn2")
    refuse(resnet50, tmp_path / "x.safetensors", r"the keras form: set --config\.model\.conv")
    refuse(
        Network("resnet50", width=4, conventions="torch"), tmp_path / "x.h5",
        r"the torch form: set --config\.model\.conventions=keras",
    )  # fmt: skip


def test_stem_of_32_pixels(tmp_path):
    big = Network("resnet18", width=4, stem="imagenet")
    arrays = random_arrays(big.shapes())
    safetensors_file.write(
        tmp_path / "x.safetensors", {".".join(map(str, p)): a for p, a in arrays.items()}, {}
    )
    big.load(tmp_path / "x.safetensors")
    refuse(
        Network("resnet18", width=4), tmp_path / "x.safetensors",
        r"conv_stem\.kernel .* \(7, 7, 3, 4\) but .* \(3, 3, 3, 4\); with --config\.model\.stem",
    )  # fmt: skip


def test_layers_without_counterpart(layers, tmp_path):
    write_hdf5(tmp_path / "x.h5", layers)
    refuse(
        Network("vgg16", layers=(2, "B", *TINY_VGG16[1:])), tmp_path / "x.h5",
        r"layers\.1\.(scale|bias|mean|var) has no counterpart in the keras form of vgg16",
    )  # fmt: skip


@pytest.mark.parametrize("length", [0, 5, 100, -100])
@pytest.mark.parametrize("suffix", ["h5", "safetensors"])
def test_truncated(vgg16, layers, tensors, tmp_path, suffix, length):
    path = tmp_path / f"x.{suffix}"
    if suffix == "h5":
        write_hdf5(path, layers)
    else:
        save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:length])
    refuse(vgg16, path, rf"x\.{suffix} is .*(truncated|damaged|empty)")


def test_damaged_hdf5_raises_no_other_error(vgg16, layers, tmp_path):
    path = tmp_path / "x.h5"
    write_hdf5(path, layers)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(content)
        for position in rng.integers(8, len(content), 20):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            vgg16.load(path)
        except UserError as error:
            assert "x.h5" in str(error)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_renamed_pickles(vgg16, tmp_path, protocol):
    for suffix in ("h5", "safetensors"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(pickle.dumps({"features.0.weight": np.zeros(3)}, protocol=protocol))
        refuse(vgg16, path, rf"x\.{suffix} is a pickle, which can run code; weights are read from")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps([]))
        path.write_bytes(archive.getvalue())
        refuse(vgg16, path, rf"x\.{suffix} is a ZIP archive, like PyTorch's \.pth")


def test_other_files(vgg16, tmp_path):
    refuse(vgg16, tmp_path / "none.h5", r"none\.h5 does not exist")
    refuse(vgg16, "~nouser/x", "~nouser/x does not exist")
    refuse(vgg16, "x" * 5000, "cannot be read: File name too long")
    refuse(vgg16, "x\0", "cannot be read: embedded null byte")
    (tmp_path / "x.h5").write_text("a text file")
    refuse(vgg16, tmp_path / "x.h5", r"x\.h5 is neither HDF5 nor safetensors")
    refuse(vgg16, tmp_path, "holds no run: it has no config.json")


def test_hdf5_of_another_layout(vgg16, tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", data=np.zeros(3))
    refuse(vgg16, path, r"not in Keras's legacy HDF5 layout: it is a \.weights\.h5 file of Keras 3")
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.zeros(3))
    refuse(vgg16, path, "lacks the attribute layer_names, and holds images")
    write_hdf5(path, {"lstm": {"a": np.zeros((2, 2)), "b": np.zeros((2, 2)), "c": np.zeros(2)}})
    refuse(vgg16, path, r"lstm is not a convolution, .*: it holds a \(2, 2\), b \(2, 2\), c \(2,\)")


def test_hdf5_that_refers_to_other_files(vgg16, layers, tmp_path):
    secret, path = tmp_path / "secret.h5", tmp_path / "x.h5"
    write_hdf5(secret, layers)
    write_hdf5(path, layers)
    with h5py.File(path, "a") as file:
        del file["block1_conv1"]["block1_conv1_W_1:0"]
        file["block1_conv1"]["block1_conv1_W_1:0"] = h5py.ExternalLink(
            str(secret), "block1_conv1/block1_conv1_W_1:0"
        )
    refuse(vgg16, path, "block1_conv1/block1_conv1_W_1:0 is not stored in the file")


def test_hdf5_that_claims_to_be_large(vgg16, layers, tmp_path):
    path = tmp_path / "x.h5"
    write_hdf5(path, layers)
    with h5py.File(path, "a") as file:
        group = file["block1_conv1"]
        del group["block1_conv1_W_1:0"]
        shape = (3, 3, 1000, 10**9)
        group.create_dataset("block1_conv1_W_1:0", shape, "f4", chunks=(3, 3, 10, 10))
    refuse(vgg16, path, "block1_conv1/block1_conv1_W_1:0 is not stored in the file")


def test_missing_package():
    with (
        pytest.raises(UserError, match="reading needs the package absent: pip install -r require"),
        packages.needing("reading"),
    ):
        import absent  # noqa: F401


def test_own_file_of_another_network(vgg16, tmp_path):
    arrays = {".".join(map(str, p)): a for p, a in random_arrays(vgg16.shapes()).items()}
    path = tmp_path / "x.safetensors"
    safetensors_file.write(path, arrays, {"model": json.dumps({"name": "vgg19"})})
    refuse(vgg16, path, r"x\.safetensors holds the network 'vgg19', not 'vgg16'")
    safetensors_file.write(path, arrays, {"model": "vgg16"})
    refuse(vgg16, path, "does not say which network it holds: the model in its metadata is 'vgg16'")
    safetensors_file.write(path, arrays, {"model": json.dumps({"name": "vgg16"})})
    assert "at random" in vgg16.load(path).notes[0]
    arrays["layers.99.kernel"] = np.zeros(3, np.float32)
    for options, message in (
        ({}, "it holds layers.99.kernel, which vgg16 does not have"),
        (
            {"layers": [2, 3]},
            r"x\.safetensors describes no network of this suite: layers must contain",
        ),
        ({"num_classes": 3}, r"x\.safetensors describes no network of this suite: .*num_classes"),
    ):
        model = {"name": "vgg16", **options}
        safetensors_file.write(path, arrays, {"model": json.dumps(model)})
        refuse(vgg16, path, message)
