import json

import numpy as np

from cifar_jax.run import summary


def test_write_json_replaces_the_file(tmp_path):
    path = tmp_path / "x.json"
    summary.write_json(path, {"a": 1})
    summary.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_are_the_argmax_of_the_logits(tmp_path):
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    labels = np.arange(7, dtype=np.int32) % 3
    summary.write_predictions(tmp_path / "p.npz", logits, labels, ("a", "b", "c"))
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_array_equal(saved["predictions"], np.argmax(logits, axis=1))
        np.testing.assert_array_equal(saved["logits"], logits)
        assert list(saved["class_names"]) == ["a", "b", "c"]
