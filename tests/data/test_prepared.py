import os
import shutil
import sys

import numpy as np
import pytest
from fake_cifar import shrink, use_tfrecords, write

from cifar_jax.data import archive, builders, prepared
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def fake(tmp_path):
    return write("cifar100", tmp_path / "raw")


@pytest.fixture
def directory(tmp_path, fake):
    return builders.prepare("cifar100", tmp_path, fake.folder)


def test_decodes_every_bit_in_the_official_order(directory, fake):
    arrays = prepared.decode(directory)
    for split in ("train", "test"):
        np.testing.assert_array_equal(arrays[f"{split}_images"], fake.images[split])
        np.testing.assert_array_equal(arrays[f"{split}_fine"], fake.labels[split]["label"])
        np.testing.assert_array_equal(arrays[f"{split}_coarse"], fake.labels[split]["coarse_label"])
        assert arrays[f"{split}_fine"].dtype == np.int32
    assert arrays["fine_names"].tolist() == fake.names["label"]
    assert arrays["coarse_names"].tolist() == fake.names["coarse_label"]
    pixels = fake.images["train"] / 255
    np.testing.assert_allclose(arrays["mean"], pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(arrays["std"], pixels.std((0, 1, 2)), rtol=1e-6)


def test_finds_the_newest_complete_version(directory, tmp_path):
    assert prepared.find("cifar10", tmp_path) is None
    assert prepared.find("cifar100", tmp_path / "nowhere") is None
    newer = directory.with_name("3.0.10")
    shutil.copytree(directory, newer)
    assert prepared.find("cifar100", tmp_path) == newer
    (newer / "dataset_info.json").unlink()
    (directory.with_name("incomplete.ABC_3.1.0")).mkdir()
    assert prepared.find("cifar100", tmp_path) == directory


def test_incomplete_directory_is_rejected_with_the_command_that_rebuilds_it(directory, tmp_path):
    (directory / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"3\.0\.2 is incomplete or corrupt .*--overwrite"):
        prepared.find("cifar100", tmp_path)


def _shard(directory):
    (shard,) = directory.glob("*train*")
    return shard


def _truncate(directory):
    _shard(directory).write_bytes(_shard(directory).read_bytes()[:-1000])


def _flip_bits(directory):
    content = bytearray(_shard(directory).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    _shard(directory).write_bytes(content)


def _remove(directory):
    _shard(directory).unlink()


def _invalid_info(directory):
    (directory / "dataset_info.json").write_text("{")


def _missing_feature(directory):
    path = directory / "features.json"
    path.write_text(path.read_text().replace('"id"', '"identifier"'))


def _invalid_image(directory):
    module = pytest.importorskip("array_record.python.array_record_module")
    path = _shard(directory)
    path.unlink()
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    writer.write(b"not a serialized example")
    writer.close()


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip_bits, _remove, _invalid_info, _missing_feature, _invalid_image],
)
def test_corruption_is_reported_with_the_command_that_rebuilds_it(directory, tmp_path, damage):
    damage(directory)
    with pytest.raises(UserError, match="is incomplete or corrupt") as error:
        prepared.decode(directory)
    command = f"`python -m cifar_jax.prepare cifar100 --data_dir {tmp_path} --overwrite`"
    assert command in str(error.value) and "\n" not in str(error.value)


def test_missing_library_is_not_reported_as_corruption(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError):
        prepared.decode(directory)


@pytest.mark.parametrize("error", [TypeError, KeyError, AttributeError, AssertionError])
def test_programming_errors_are_not_reported_as_corruption(directory, monkeypatch, error):
    def fail(*args):
        raise error("a bug")

    monkeypatch.setattr(prepared, "_examples", fail)
    with pytest.raises(error, match="a bug"):
        prepared.decode(directory)


@pytest.mark.parametrize(
    ("num_train", "match"),
    [(11, "3 of 11 train images are missing"), (5, "train has more than 5 images")],
)
def test_wrong_number_of_images_is_rejected(directory, monkeypatch, num_train, match):
    official = archive.ARCHIVES["cifar100"]
    splits = {"train": {"train.bin": num_train}, "test": {"test.bin": 4}}
    monkeypatch.setitem(archive.ARCHIVES, "cifar100", official._replace(splits=splits))
    with pytest.raises(UserError, match=match):
        prepared.decode(directory)


def test_reads_tfrecords_and_verifies_them(directory, fake):
    use_tfrecords(directory)
    arrays = prepared.decode(directory)
    np.testing.assert_array_equal(arrays["train_images"], fake.images["train"])
    shard = _shard(directory)
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train.*: record 7 has a wrong checksum\)"):
        prepared.decode(directory)


def _pipe_as_shard(directory):
    _shard(directory).unlink()
    os.mkfifo(_shard_path := directory / "cifar100-train.array_record-00000-of-00001")
    return f"{_shard_path.name} is not a file"


def _module_of_a_stranger(directory):
    path = directory / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.text_feature", "x"))
    return "features.json names x.Text, which is not a feature of TFDS"


def _other_image_shape(directory):
    path = directory / "features.json"
    path.write_text(path.read_text().replace('"3"', '"1"'))
    return "features.json has .* instead of "


def _fewer_classes(directory):
    path = directory / "label.labels.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    return "label"


def _no_test_split(directory):
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace('"name": "test"', '"name": "tset"'))
    return "lacks a training or a test split"


def _other_format(directory):
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace('"array_record"', '"parquet"'))
    return "the file format is neither ArrayRecord nor TFRecord"


def _impossible_file_names(directory):
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace("{DATASET}", "{}"))
    return "dataset_info.json or features.json is not valid: IndexError"


def _no_splits(directory):
    path = directory / "dataset_info.json"
    path.write_text("[]")
    return "dataset_info.json or features.json is not valid"


@pytest.mark.parametrize(
    "damage",
    [
        _pipe_as_shard,
        _module_of_a_stranger,
        _other_image_shape,
        _fewer_classes,
        _no_test_split,
        _other_format,
        _impossible_file_names,
        _no_splits,
    ],
)
def test_unusable_metadata_is_rejected_with_a_reason(directory, damage):
    with pytest.raises(UserError, match=damage(directory)) as error:
        prepared.decode(directory)
    assert "\n" not in str(error.value)
