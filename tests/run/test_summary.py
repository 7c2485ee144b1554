import json

import pytest

from cifar_jax.run import summary


def test_write_json_replaces_the_file(tmp_path):
    path = tmp_path / "x.json"
    summary.write_json(path, {"a": 1})
    summary.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path, fill_the_disk):
    path = tmp_path / "x.json"
    summary.write_json(path, {"a": 1})
    fill_the_disk()
    with pytest.raises(OSError, match="No space left"):
        summary.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]
