import sys

import jax
import numpy as np
import pytest
from fake_cifar import shrink, write

from cifar_jax import data
from cifar_jax.data import archive, builders, download, prepared
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def no_download(monkeypatch, tmp_path):
    def fetch(*args):
        raise UserError("no network in this test")

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    shrink(monkeypatch)
    fake = write("cifar100", tmp_path)
    builders.prepare("cifar100", tmp_path, fake.folder)
    return fake


def test_the_default_directory_is_the_one_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data.resolve(None) == data.resolve("") == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.resolve(None) == tmp_path / "tensorflow_datasets"


def test_a_user_without_home_must_name_the_folder(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", fail)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert data.resolve(tmp_path) == tmp_path
    with pytest.raises(UserError, match=r"there is no such home directory; set data.dir"):
        data.resolve(None)


@pytest.mark.parametrize(("label", "key"), [("fine", "label"), ("coarse", "coarse_label")])
def test_returns_the_official_images_with_the_requested_label(fake, tmp_path, label, key):
    dataset = data.load("cifar100", label=label, data_dir=str(tmp_path))
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(dataset, split).images, fake.images[split])
        np.testing.assert_array_equal(getattr(dataset, split).labels, fake.labels[split][key])
    assert dataset.val is None
    assert dataset.info.class_names == tuple(fake.names[key])
    assert dataset.info.num_classes == {"fine": 100, "coarse": 20}[label]
    assert dataset.info.num_classes == data.num_classes("cifar100", label)
    assert data.num_classes("cifar10", "fine") == data.num_classes("synthetic", "fine") == 10
    assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    assert dataset.info.mean.dtype == dataset.info.std.dtype == np.float32


def test_validation_split_keeps_images_and_labels_together(fake):
    whole, dataset = data.load("cifar100"), data.load("cifar100", val_fraction=0.25, val_seed=3)
    kept, held_out = data.split.train_val_indices(8, 0.25, 3)
    for part, indices in ((dataset.train, kept), (dataset.val, held_out)):
        np.testing.assert_array_equal(part.images, whole.train.images[indices])
        np.testing.assert_array_equal(part.labels, whole.train.labels[indices])
    assert len(dataset.val.images) == 2
    np.testing.assert_array_equal(dataset.test.images, whole.test.images)
    # Over the full official split.
    np.testing.assert_array_equal(dataset.info.mean, whole.info.mean)


def test_limit_keeps_the_first_images_of_each_split(fake):
    whole = data.load("cifar100", val_fraction=0.5)
    part = data.load("cifar100", val_fraction=0.5, limit=3)
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(part, split).images, getattr(whole, split).images[:3])
        np.testing.assert_array_equal(getattr(part, split).labels, getattr(whole, split).labels[:3])
    assert len(part.train.labels) == 3 and part.info.num_classes == 100
    assert data.load("cifar100", limit=3).val is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_unpacked_archive_is_read_without_tfds(monkeypatch, tmp_path, name):
    shrink(monkeypatch)
    fake = write(name, tmp_path / "raw")
    builders.prepare(name, tmp_path / "tfds", fake.folder)
    through_tfds = data.load(name, data_dir=tmp_path / "tfds", val_fraction=0.25)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    direct = data.load(name, data_dir=tmp_path / "raw", val_fraction=0.25)
    assert direct.info.class_names == through_tfds.info.class_names
    for field in ("mean", "std"):
        actual, expected = getattr(direct.info, field), getattr(through_tfds.info, field)
        np.testing.assert_array_equal(actual, expected)
    for field in ("train", "val", "test"):
        actual, expected = getattr(direct, field), getattr(through_tfds, field)
        jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert direct.train.labels.dtype == np.int32
    assert not list((tmp_path / "raw").glob("[!c]*"))  # nothing else is written


def test_prepares_the_data_set_on_first_use(monkeypatch, tmp_path):
    shrink(monkeypatch)
    fake = write("cifar10", tmp_path / "raw")
    monkeypatch.setattr(builders, "_download", lambda name, data_dir: fake.folder)
    (tmp_path / "new").mkdir()
    for _ in range(2):
        dataset = data.load("cifar10", data_dir=tmp_path / "new")
        np.testing.assert_array_equal(dataset.train.images, fake.images["train"])
    assert prepared.find("cifar10", tmp_path / "new")


@pytest.mark.parametrize("below", ["cifar10", "cifar10/below"])
def test_a_folder_below_that_of_the_data_set_is_refused(monkeypatch, tmp_path, below):
    monkeypatch.setattr(builders, "prepare", lambda *_: pytest.fail("prepared"))
    shrink(monkeypatch)
    fake = write("cifar10", tmp_path)
    (fake.folder.parent / below).mkdir(parents=True)
    message = f"cifar10 is not in .*{below}, but in {fake.folder.parent}: set data.dir"
    with pytest.raises(UserError, match=message):
        data.load("cifar10", data_dir=fake.folder.parent / below)


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_directory_that_does_not_exist_is_not_created(tmp_path, monkeypatch, way):
    monkeypatch.setattr(builders, "prepare", lambda *_: pytest.fail("prepared"))
    mistyped = tmp_path / "tdfs"
    monkeypatch.setenv("TFDS_DATA_DIR", str(mistyped if way == "variable" else tmp_path))
    field = {"argument": "data.dir", "variable": r"\$TFDS_DATA_DIR"}[way]
    with pytest.raises(
        UserError, match=f"^{field}: {mistyped} does not exist; to create one, run `python -m "
    ) as error:
        data.load("cifar10", data_dir=mistyped if way == "argument" else None)
    assert "\n" not in str(error.value) and not mistyped.exists()
    mistyped.touch()
    with pytest.raises(UserError, match="is not a directory"):
        data.load("cifar10", data_dir=mistyped)


def test_folder_of_the_archive_itself_is_found(monkeypatch, tmp_path):
    shrink(monkeypatch)
    fake = write("cifar10", tmp_path / "raw")
    images = data.load("cifar10", data_dir=fake.folder).train.images
    np.testing.assert_array_equal(images, fake.images["train"])


@pytest.mark.parametrize("directory", ["a" * 5_000, "nul\0", "~nobody_of_this_name/x"])
def test_impossible_directory_is_one_error(directory):
    with pytest.raises(UserError, match=r"cannot read|does not exist|no such home"):
        data.load("cifar10", data_dir=directory)


def test_missing_data_set_without_network_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"no network in this test.*data\.name=synthetic") as error:
        data.load("cifar100", data_dir="")
    assert str(error.value).startswith(f"cifar100 is not in {tmp_path} ")


def test_synthetic_needs_no_data_directory(tmp_path):
    dataset = data.load("synthetic", data_dir=tmp_path / "nowhere", val_fraction=0.1)
    assert len(dataset.train.images) == 7_200 and len(dataset.val.images) == 800
    assert dataset.test.images.shape == (2_000, 32, 32, 3) and dataset.info.num_classes == 10
    assert dataset.info.class_names[0] == "rows" and dataset.info.mean.shape == (3,)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "cifar"}, "unknown data set 'cifar'; did you mean 'cifar10'"),
        ({"name": "cifar100", "label": "corase"}, "unknown label 'corase'; did you mean 'coarse'"),
        ({"name": "cifar10", "label": "coarse"}, "cifar10 has no coarse labels"),
        ({"name": "synthetic", "label": "coarse"}, "synthetic has no coarse labels"),
        ({"name": "synthetic", "val_fraction": 1.5}, "validation fraction must be in"),
        ({"name": "synthetic", "val_fraction": -0.5}, "validation fraction must be in"),
    ],
)
def test_invalid_argument_is_rejected(arguments, match):
    with pytest.raises(UserError, match=match):
        data.load(**arguments)


@pytest.mark.real_images
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_images_are_loaded_bit_for_bit(tmp_path, name, pytestconfig):
    source = pytestconfig.getoption("source")
    data_dir = pytestconfig.getoption("tfds") or tmp_path
    builders.prepare(name, data_dir, source)
    dataset, official = data.load(name, data_dir=str(data_dir)), archive.ARCHIVES[name]
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        records = np.concatenate(
            [
                np.fromfile(source / official.folder / file, np.uint8)
                for file in official.splits[split]
            ]
        ).reshape(-1, official.record_size)
        images = part.images.transpose(0, 3, 1, 2).reshape(len(records), -1)
        assert np.array_equal(images, records[:, -3072:])
        assert np.array_equal(part.labels, records[:, -3073])
    # The constants that CIFAR recipes commonly use.
    known = {"cifar10": (0.4914, 0.2470), "cifar100": (0.5071, 0.2673)}[name]
    np.testing.assert_allclose((dataset.info.mean[0], dataset.info.std[0]), known, atol=1e-4)
