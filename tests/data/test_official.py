import numpy as np
import pytest
from fake_cifar import make_official, pack, shrink, write

from cifar_jax import data
from cifar_jax.data import archive, builders, cache
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    shrink(monkeypatch)


@pytest.fixture(params=["cifar10", "cifar100"])
def fake(request, monkeypatch, tmp_path):
    fake = write(request.param, tmp_path / "raw")
    make_official(monkeypatch, request.param, fake)
    return fake


def _name(fake):
    return {a.folder: name for name, a in archive.ARCHIVES.items()}[fake.folder.name]


def _edit(path, position, value):
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(content)


def test_official_files_in_any_order_have_no_differences(fake):
    name, facts = _name(fake), archive.ARCHIVES[_name(fake)]
    assert archive.read(name, pack(fake.folder)).differences == []
    for files in facts.splits.values():
        content = b"".join((fake.folder / file).read_bytes() for file in files)
        records = np.frombuffer(content, np.uint8).reshape(-1, facts.record_size)[::-1].copy()
        for file, part in zip(files, np.split(records, len(files)), strict=True):
            (fake.folder / file).write_bytes(part.tobytes())
    assert archive.read(name, fake.folder).differences == []


@pytest.mark.parametrize("change", ["label", "pixel", "exchanged pixels", "repeated record"])
def test_each_change_of_a_split_is_found(fake, change):
    name, facts = _name(fake), archive.ARCHIVES[_name(fake)]
    (file,) = facts.splits["test"]
    content = bytearray((fake.folder / file).read_bytes())
    size = facts.record_size
    if change == "label":
        content[0] = (content[0] + 1) % 10
    elif change == "pixel":
        content[-1] ^= 1
    elif change == "exchanged pixels":  # between two images: the file's bytes are a permutation
        content[size - 1], content[2 * size - 1] = content[2 * size - 1], content[size - 1]
    else:
        content[:size] = content[size : 2 * size]
    (fake.folder / file).write_bytes(content)
    assert archive.read(name, fake.folder).differences == [file]


def test_other_class_names_are_a_difference(fake):
    facts = archive.ARCHIVES[_name(fake)]
    file, _ = facts.labels["label"]
    path = fake.folder / file
    path.write_text(path.read_text().replace("label_7\n", "label_Z\n"))
    assert archive.read(_name(fake), fake.folder).differences == [file]


def test_note_is_printed_once_and_survives_tfds_files_and_their_cache(fake, tmp_path, capsys):
    name, facts = _name(fake), archive.ARCHIVES[_name(fake)]
    (file,) = facts.splits["test"]
    data.load(name, data_dir=fake.folder.parent)
    builders.prepare(name, tmp_path / "official", fake.folder)
    data.load(name, data_dir=tmp_path / "official")
    assert "note:" not in capsys.readouterr().out
    _edit(fake.folder / file, -1, 1 ^ (fake.folder / file).read_bytes()[-1])
    data._unpacked.cache_clear()
    directory = builders.prepare(name, tmp_path / "tfds", fake.folder)
    for source in (fake.folder, directory):
        parent = tmp_path / "tfds" if source == directory else fake.folder.parent
        capsys.readouterr()
        for _ in range(2):
            data.load(name, data_dir=parent)
        expected = f"note: {source} is not the official {name} (differences in {file}), so"
        assert capsys.readouterr().out.count(expected) == 1
    assert cache.load(directory, None)["differences"].tolist() == [file]


def test_unfinished_file_is_rejected(fake):
    name, facts = _name(fake), archive.ARCHIVES[_name(fake)]
    file = list(facts.splits["train"])[-1]
    content = (fake.folder / file).read_bytes()
    (fake.folder / file).write_bytes(content[: len(content) // 3].ljust(len(content), b"\0"))
    with pytest.raises(UserError, match=f"5 of the 8 records of {file} contain only zeros"):
        archive.read(name, fake.folder)
    # A single black image of class 0 may be intentional.
    (fake.folder / file).write_bytes(content[facts.record_size :] + bytes(facts.record_size))
    expected = {"cifar10": "one of data_batch_1.bin to data_batch_5.bin", "cifar100": "train.bin"}
    assert archive.read(name, fake.folder).differences == [expected[name]]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda t: t + "one_more\n", "must contain .* distinct class names"),
        (lambda t: t.replace("label_1\n", ""), "must contain .* distinct class names"),
        (lambda t: t + "label_1\n", "must contain .* distinct class names"),
        (lambda t: t.replace("label_1\n", "\n"), "blank line"),
        (lambda t: t.replace("label_1\n", "a\0b\n"), "not a text file"),
        (lambda t: t.replace("label_1\n", "label 1 label_2\n", 1), None),  # one name, with spaces
        (lambda t: t.replace("\n", "\r\n"), None),
    ],
)
def test_class_names_are_one_per_line(fake, damage, match):
    file, num_classes = archive.ARCHIVES[_name(fake)].labels["label"]
    path = fake.folder / file
    path.write_bytes(damage(path.read_text().rstrip() + "\n").encode())
    if match:
        with pytest.raises(UserError, match=match):
            archive.read(_name(fake), fake.folder)
    else:
        assert len(archive.read(_name(fake), fake.folder).names["label"]) == num_classes


@pytest.mark.real_images
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_files_are_official(monkeypatch, pytestconfig, name):
    monkeypatch.undo()
    raw = archive.read(name, pytestconfig.getoption("source"))
    assert raw.differences == []
    for label, (_, num_classes) in archive.ARCHIVES[name].labels.items():
        for split, n in (("train", 50_000), ("test", 10_000)):
            counts = np.bincount(raw.labels[split][label])
            assert counts.tolist() == [n // num_classes] * num_classes
