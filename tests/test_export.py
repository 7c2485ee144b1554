"""Checks that an exported network computes the same as its run, also without this package."""

import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from test_image_file import picture

from cifar_jax import augment, export, predict
from cifar_jax.config import choose_model
from cifar_jax.errors import UserError
from cifar_jax.trained import network_file, restore, stablehlo
from cifar_jax.transfer import safetensors_file

pytest.importorskip("safetensors")
pytest.importorskip("flatbuffers")
# With a validation split, the curves do not show the accuracy on the test set.
WITH_VALIDATION = dict(data__val_fraction=0.2, num_epochs=1)
IMAGES = tiny.load("", val_fraction=0.2).test.images


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns the workdir of a run of cnn_small, whose file the example in docs/export.md reads."""
    folder = tmp_path_factory.mktemp("export") / "run"
    model = ConfigDict({"name": "cnn_small"})
    tiny.train(tiny.make_config(model=model, **WITH_VALIDATION), folder)
    return folder


@pytest.fixture(scope="module")
def weights(workdir):
    assert export.main(["--workdir", str(workdir), "--format", "safetensors"]) == 0
    return workdir / "model.safetensors"


def logits_of(workdir):
    """Returns the logits of the test images, which the run has written."""
    with np.load(workdir / "predictions.npz") as file:
        return file["logits"]


def run_example(format_name, ending, folder, blocked):
    """Runs an example of docs/export.md in a folder, without some packages; returns its result.

    The variable `images` holds the test images, and `ending` is the expression to return.
    """
    text = (tiny.ROOT / "docs" / "export.md").read_text()
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if f"model.{format_name}" in block
    )
    np.save(folder / "images.npy", IMAGES)
    block = f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n"
    begin = "import numpy as np\nimages = np.load('images.npy')\n"
    end = f"np.save('result.npy', {ending})\n"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    subprocess.run(
        [sys.executable, "-c", block + example + begin + end],
        cwd=folder,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )
    return np.load(folder / "result.npy")


def test_a_numpy_program_computes_the_same_logits(workdir, weights, tmp_path):
    shutil.copy(weights, tmp_path)
    blocked = ["cifar_jax", "jax", "flax", "torch"]
    found = run_example("safetensors", "logits(images)", tmp_path, blocked)
    np.testing.assert_allclose(found, logits_of(workdir), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_program_runs_with_jax_alone(workdir, tmp_path):
    out = tmp_path / "model.stablehlo"
    assert export.main(["--workdir", str(workdir), "--format", "stablehlo", "--out", str(out)]) == 0
    blocked = ["cifar_jax", "flax", "optax", "orbax", "ml_collections"]
    ending = "np.concatenate([program(images[:3]), program(images[3:])])"
    found = run_example("stablehlo", ending, tmp_path, blocked)
    expected = logits_of(workdir)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    names = run_example("stablehlo", "predict(images)", tmp_path, blocked)
    assert [*names] == [f"class {i}" for i in expected.argmax(axis=-1)]
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "rocm", "tpu")


def test_the_metadata_describe_the_network(workdir, weights):
    arrays, metadata = safetensors_file.read(weights)
    assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys(
        [f"{layer}.{kind}" for layer in ("conv1", "conv2", "dense1", "dense2", "dense3")
         for kind in ("kernel", "bias")], np.float32,
    )  # fmt: skip
    about = {k: json.loads(v) for k, v in metadata.items() if v[0] in "[{" or v.isdecimal()}
    summary = json.loads((workdir / "summary.json").read_text())
    assert about["model"] == {"name": "cnn_small"}
    assert about["classes"] == [f"class {i}" for i in range(10)]
    assert (about["mean"], about["std"]) == ([0.5] * 3, [0.25] * 3)
    expected = {"format": "cifar_jax", "normalize": "standard", "label": "fine", "dtype": "float32"}
    assert expected.items() <= metadata.items()
    assert (about["epoch"], about["step"], about["image_size"]) == (1, 4, 32)
    assert about["views"] == 1
    assert about["accuracy"]["test_accuracy"] == summary["test_accuracy"]
    assert about["accuracy"]["val_accuracy"] == summary["val_accuracy"]


def test_mean_and_std_are_the_numbers_that_the_network_expects(workdir):
    network = restore.from_workdir(workdir)
    for name in augment.NORMALIZATIONS:
        network.config.augment.normalize = name
        about = network_file.describe(network)
        images = IMAGES[..., ::-1] if about["channels"] == "BGR" else IMAGES
        found = (images / 255 - np.array(about["mean"])) / np.array(about["std"])
        scaling = augment.scaling(name, network.info.mean, network.info.std)
        np.testing.assert_allclose(found, augment.preprocess(IMAGES, scaling), rtol=1e-5, atol=1e-5)


def test_predictions_of_the_file_equal_those_of_the_workdir(workdir, weights, tmp_path, capsys):
    picture("RGB").save(tmp_path / "a.png")
    printed = []
    for source in (("--workdir", str(workdir)), ("--weights", str(weights))):
        assert predict.main([*source, "--json", str(tmp_path / "a.png")]) == 0
        printed.append(capsys.readouterr())
    assert printed[0] == printed[1]
    assert json.loads(printed[0].out)


def test_statistics_options_and_preprocessing_survive(tmp_path):
    config = tiny.make_config(
        model=ConfigDict({"name": "vgg16", "layers": (16, "B", 16, "M", "F", 8)}),
        **WITH_VALIDATION,
        augment__resize=20, augment__resize_method="bicubic", augment__normalize="caffe",
        augment__views=6,
    )  # fmt: skip
    choose_model(config, "vgg16")
    tiny.train(config, tmp_path / "run")
    network = restore.from_workdir(tmp_path / "run")
    network_file.write(network, tmp_path / "model.safetensors")
    again = network_file.read(tmp_path / "model.safetensors")
    assert again.config.model.to_dict() == network.config.model.to_dict()
    assert network.state.batch_stats
    for name in ("params", "batch_stats"):
        trees = getattr(again.state, name), getattr(network.state, name)
        jax.tree.map(np.testing.assert_array_equal, *trees)
    assert predict.predict(again, IMAGES) == predict.predict(network, IMAGES)
    program = jax.export.deserialize(bytearray(stablehlo.serialize(again)))
    found = jax.jit(program.call)(IMAGES)
    np.testing.assert_allclose(found, logits_of(tmp_path / "run"), rtol=1e-4, atol=1e-4)

    # Files of older versions have no views: one view is predicted.
    arrays, metadata = safetensors_file.read(tmp_path / "model.safetensors")
    assert metadata.pop("views") == "6"
    safetensors_file.write(tmp_path / "old.safetensors", arrays, metadata)
    old = network_file.read(tmp_path / "old.safetensors")
    assert old.config.augment.views == 1
    assert predict.predict(old, IMAGES) != predict.predict(network, IMAGES)


def test_a_run_that_is_not_complete_is_refused(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert export.main(["--workdir", str(tmp_path / "run"), "--format", "safetensors"]) == 1
    assert "is not complete (epoch 1 of 1)" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert export.main(["--workdir", str(tmp_path / "run"), "--format", "stablehlo"]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.stablehlo").exists()


def test_files_that_cannot_be_written_are_named(workdir, tmp_path, capsys, monkeypatch):
    command = ["--workdir", str(workdir), "--format", "safetensors", "--out"]
    for out, message in (
        (tmp_path / "model.h5", "must end in .safetensors"),
        (tmp_path / "nothing" / "model.safetensors", "there is no folder"),
    ):
        assert export.main([*command, str(out)]) == 1
        assert message in capsys.readouterr().err
    out = tmp_path / "model.safetensors"

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_file, "write", fail)
    assert export.main([*command, str(out)]) == 1
    assert f"{out} cannot be written: No space left on device" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main(["--workdir", str(workdir), "--format", "pickle"])
    assert "invalid choice: 'pickle'" in capsys.readouterr().err


def damaged(arrays, metadata):
    """Yields files that `network_file.read` must refuse, and what the message must contain."""
    kernel = arrays["conv1.kernel"]
    yield {}, metadata, "does not hold cnn_small: it holds nothing"
    yield {k: v for k, v in arrays.items() if k != "conv1.bias"}, metadata, "lacks conv1.bias"
    yield arrays | {"extra": kernel}, metadata, "holds extra, which cnn_small does not have"
    yield arrays | {"conv1.kernel": kernel[:3]}, metadata, r"conv1.kernel .* shape \(3, 5, 3, 8\)"
    yield arrays | {"conv1.kernel": np.nan * kernel}, metadata, "conv1.kernel .* holds NaN"
    for name, value, message in (
        ("model", '{"name": "cnn_smal"}', "unknown model 'cnn_smal'"),
        ("model", '{"name": "cnn_small", "depth": 3}', "unknown option of cnn_small"),
        ("model", "[", "metadata"),
        ("model", "[" * 100_000, "metadata"),
        ("model", "3", "metadata"),
        ("normalize", "none", "augment.normalize"),
        ("dtype", "float8", "unknown dtype"),
        ("dataset", "mnist", "unknown data.name"),
        ("classes", "[]", "classes must be"),
        ("classes", "[1, 2]", "classes must be"),
        ("classes", '["a", "b"]', r"dense3\.\w+ .* has \((32, )?2"),
        ("mean", "[NaN, 0, 0]", "mean and std must be"),
        ("mean", "0.5", "mean and std must be"),
        ("std", "[0, 1, 1]", "std must be above 0"),
        ("epoch", "", "metadata"),
        ("views", "3", r"augment\.views must be one of \(1, 2, 6\), got 3"),
        ("views", "true", "augment.views"),
        ("views", "[6]", "metadata"),
    ):
        yield arrays, metadata | {name: value}, message
    yield arrays, {k: v for k, v in metadata.items() if k != "label"}, "metadata.*'label'"


def test_damaged_contents_are_refused(weights, tmp_path):
    path = tmp_path / "model.safetensors"
    for arrays, metadata, message in damaged(*safetensors_file.read(weights)):
        safetensors_file.write(path, arrays, metadata)
        with pytest.raises(UserError, match=message) as caught:
            network_file.read(path)
        assert str(path) in str(caught.value)


def test_truncated_and_foreign_files_are_refused(weights, tmp_path, capsys):
    picture("RGB").save(tmp_path / "a.png")
    content = weights.read_bytes()
    path = tmp_path / "model.safetensors"
    pickled = b"\x80\x04\x95" + b"\0" * 100
    for data in (content[: len(content) // 2], content[:4], b"", pickled, content[8:]):
        path.write_bytes(data)
        assert predict.main(["--weights", str(path), str(tmp_path / "a.png")]) == 1
        assert re.match(f"error: .*{path}", capsys.readouterr().err)
    from safetensors.numpy import save_file

    save_file({"features.0.weight": np.zeros((8, 3, 3, 3), np.float32)}, path)
    with pytest.raises(UserError, match=r"was not written by cifar_jax\.export"):
        network_file.read(path)
    for missing in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(missing))):
            network_file.read(missing)


def test_missing_packages_are_named(workdir, weights, monkeypatch, capsys):
    for name, format_name in (("flatbuffers", "stablehlo"), ("safetensors.numpy", "safetensors")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert export.main(["--workdir", str(workdir), "--format", format_name]) == 1
        assert "pip install -r requirements-transfer.txt" in capsys.readouterr().err
