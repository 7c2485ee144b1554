import numpy as np
import pytest

from cifar_jax.run import predictions


def test_predictions_are_the_argmax_of_the_logits(tmp_path):
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    labels = np.arange(7, dtype=np.int32) % 3
    predictions.write(tmp_path / "p.npz", logits, labels, ("a", "b", "c"))
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_array_equal(saved["predictions"], np.argmax(logits, axis=1))
        np.testing.assert_array_equal(saved["logits"], logits)
        assert list(saved["class_names"]) == ["a", "b", "c"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path, logits, labels = tmp_path / "p.npz", np.eye(2, dtype=np.float32), np.arange(2)
    predictions.write(path, logits, labels, ("a", "b"))

    def fill_the_disk(file, **arrays):
        file.write(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        predictions.write(path, 2 * logits, labels, ("a", "b"))
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["logits"], logits)
    assert list(tmp_path.iterdir()) == [path]
