import json

from cifar_jax.run import summary


def test_write_json_replaces_the_file(tmp_path):
    path = tmp_path / "x.json"
    summary.write_json(path, {"a": 1})
    summary.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]
