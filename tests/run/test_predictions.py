import numpy as np

from cifar_jax.run import predictions


def test_predictions_are_the_argmax_of_the_logits(tmp_path):
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    labels = np.arange(7, dtype=np.int32) % 3
    predictions.write(tmp_path / "p.npz", logits, labels, ("a", "b", "c"))
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_array_equal(saved["predictions"], np.argmax(logits, axis=1))
        np.testing.assert_array_equal(saved["logits"], logits)
        assert list(saved["class_names"]) == ["a", "b", "c"]
