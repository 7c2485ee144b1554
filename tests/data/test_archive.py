import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fake_cifar import pack, shrink, write

from cifar_jax.data import archive
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("source", ["folder", "parent", "tar.gz"])
def test_reads_every_bit_from_every_kind_of_source(tmp_path, name, source):
    fake = write(name, tmp_path)
    path = {
        "folder": lambda: fake.folder,
        "parent": lambda: tmp_path,
        "tar.gz": lambda: pack(fake.folder),
    }[source]()
    raw = archive.read(name, path)
    assert raw.names == fake.names
    for split in ("train", "test"):
        np.testing.assert_array_equal(raw.images[split], fake.images[split])
        assert raw.images[split].dtype == np.uint8 and raw.images[split].flags.c_contiguous
        assert raw.labels[split].keys() == fake.labels[split].keys()
        for label, column in fake.labels[split].items():
            np.testing.assert_array_equal(raw.labels[split][label], column)


def _truncated_tar(fake):
    path = pack(fake.folder)
    path.write_bytes(path.read_bytes()[:-5000])
    return path, "corrupt or not a .tar.gz"


def _flipped_bit_in_tar(fake):
    path = pack(fake.folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path, "corrupt or not a .tar.gz"


def _text_named_tar(fake):
    path = fake.folder.parent / "cifar-100-binary.tar.gz"
    path.write_text("<html>404: not found</html>")
    return path, "corrupt or not a .tar.gz.*cifar-100-binary.tar.gz"


def _missing(fake):
    return fake.folder / "nowhere.tar.gz", "nowhere.tar.gz does not exist"


def _empty_folder(fake):
    (fake.folder.parent / "empty").mkdir()
    return fake.folder.parent / "empty", "empty does not contain train.bin"


def _truncated_bin(fake):
    path = fake.folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    return fake.folder, "train.bin has 24,591 bytes instead of 24,592: it is truncated"


def _truncated_bin_in_tar(fake):
    folder, match = _truncated_bin(fake)
    return pack(folder), match


def _oversized_bin(fake):
    (fake.folder / "test.bin").write_bytes(bytes(5 * 3074))
    return fake.folder, "test.bin has 15,370 bytes instead of 12,296: it is not the official"


def _missing_bin_in_tar(fake):
    (fake.folder / "test.bin").unlink()
    return pack(fake.folder), "tar.gz does not contain test.bin"


def _other_data_set(fake):
    return write("cifar10", fake.folder.parent).folder, "batches-bin does not contain train.bin"


def _other_archive(fake):
    return pack(write("cifar10", fake.folder.parent).folder), "does not contain train.bin"


def _two_files_of_one_name_in_tar(fake):
    (fake.folder / "copy").mkdir()
    (fake.folder / "copy/train.bin").write_bytes((fake.folder / "train.bin").read_bytes())
    return pack(fake.folder), "contains more than one train.bin"


def _endless_tar(fake):
    path = fake.folder.parent / "zeros.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as f:
        f.write(bytes(2_000_000))
    return path, "unpacks to more than 1,122,352 bytes"


def _oversized_stranger_in_tar(fake):
    (fake.folder / "readme.html").write_bytes(bytes(2_000_000))
    return pack(fake.folder), "unpacks to more than 1,122,352 bytes"


def _negative_size_in_tar(fake):
    """tarfile (CPython 3.11.7) goes back and reads the same member again, without end."""
    path = pack(fake.folder, "w:")
    content = bytearray(path.read_bytes())
    content[124:136] = (-1024).to_bytes(12, "big", signed=True)  # the size of the first member
    content[156:157] = b"0"  # which is now a file
    header = tarfile.TarInfo("a").tobuf()
    checksum = sum(content[:148]) + sum(content[156:512]) + 8 * ord(" ")
    content[148:156] = b"%06o\0 " % checksum
    path.write_bytes(header + bytes(content))
    return path, "unpacks to more than"


def _pipe(fake):
    os.mkfifo(fake.folder.parent / "pipe.tar.gz")
    return fake.folder.parent / "pipe.tar.gz", "pipe.tar.gz is not a file or a folder"


def _device(fake):
    return Path("/dev/zero"), "zero is not a file or a folder"


def _pipe_in_folder(fake):
    (fake.folder / "train.bin").unlink()
    os.mkfifo(fake.folder / "train.bin")
    return fake.folder, "does not contain train.bin"


def _label_out_of_range(fake):
    content = bytearray((fake.folder / "train.bin").read_bytes())
    content[3074 + 1] = 100  # the second record's fine label
    (fake.folder / "train.bin").write_bytes(content)
    return fake.folder, "train files contain a label of 100, but there are only 100 classes"


def _class_name_missing(fake):
    path = fake.folder / "coarse_label_names.txt"
    path.write_text("\n".join(path.read_text().split()[1:]))
    return fake.folder, "coarse_label_names.txt must contain 20 distinct class names"


@pytest.mark.parametrize(
    "damage",
    [
        _truncated_tar,
        _flipped_bit_in_tar,
        _text_named_tar,
        _missing,
        _empty_folder,
        _truncated_bin,
        _truncated_bin_in_tar,
        _oversized_bin,
        _missing_bin_in_tar,
        _other_data_set,
        _other_archive,
        _two_files_of_one_name_in_tar,
        _endless_tar,
        _oversized_stranger_in_tar,
        _negative_size_in_tar,
        _pipe,
        _device,
        _pipe_in_folder,
        _label_out_of_range,
        _class_name_missing,
    ],
)
def test_unusable_source_is_rejected_with_a_reason(tmp_path, damage):
    path, match = damage(write("cifar100", tmp_path))
    with pytest.raises(UserError, match=match):
        archive.read("cifar100", path)


def test_oversized_tar_member_is_rejected_before_it_is_read(tmp_path, monkeypatch):
    fake = write("cifar100", tmp_path)
    (fake.folder / "train.bin").write_bytes(bytes(3074 * 9))
    path = pack(fake.folder)
    extract, read = archive.tarfile.TarFile.extractfile, []
    monkeypatch.setattr(
        archive.tarfile.TarFile, "extractfile", lambda t, m: read.append(m.name) or extract(t, m)
    )
    with pytest.raises(UserError, match=r"train.bin has 27,666 bytes"):
        archive.read("cifar100", path)
    assert "cifar-100-binary/train.bin" not in read


def test_unknown_data_set_suggests_the_closest_name(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cifar100'"):
        archive.read("cifar1000", tmp_path)


def test_archive_facts_equal_tfds(monkeypatch):
    monkeypatch.undo()  # restores the real record counts
    cifar = pytest.importorskip("tensorflow_datasets.image_classification.cifar")
    for name, builder in {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}.items():
        ours, expected = archive.ARCHIVES[name], builder._cifar_info.fget(builder)
        assert ours.url == expected.url
        assert ours.sha256 == builder.url_infos[ours.url].checksum
        assert ours.folder + "/" == expected.prefix
        assert list(ours.splits["train"]) == expected.train_files
        assert list(ours.splits["test"]) == expected.test_files
        assert list(ours.labels) == expected.label_keys
        assert [file for file, _ in ours.labels.values()] == expected.label_files
        assert [len(set(names)) for names in ours.names.values()] == [
            num_classes for _, num_classes in ours.labels.values()
        ]
        assert sum(ours.splits["train"].values()) == 50_000
        assert sum(ours.splits["test"].values()) == 10_000
