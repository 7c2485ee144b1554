import numpy as np
import pytest

from cifar_jax.data import synthetic


@pytest.fixture(scope="module")
def arrays():
    return synthetic.make()


def test_shapes_types_and_balance(arrays):
    for split, n in (("train", synthetic.NUM_TRAIN), ("test", synthetic.NUM_TEST)):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_fine"]
        assert images.shape == (n, 32, 32, 3) and images.dtype == np.uint8
        assert labels.shape == (n,) and labels.dtype == np.int32
        assert np.bincount(labels).tolist() == [n // 10] * 10
    assert arrays["fine_names"].tolist() == list(synthetic.CLASS_NAMES)


def test_result_depends_only_on_the_seed(arrays):
    again, other = synthetic.make(), synthetic.make(seed=1)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[k], arrays[k]) for k in arrays)
    assert not np.array_equal(other["train_images"], arrays["train_images"])
    assert not np.array_equal(other["train_fine"], arrays["train_fine"])


def test_no_image_occurs_twice(arrays):
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    assert len({image.tobytes() for image in images}) == len(images)


def test_equals_the_data_set_of_the_committed_results(arrays):
    # The tolerance is loose because sin and hypot may differ in the last bit between processors.
    assert arrays["train_fine"][:12].tolist() == [0, 9, 5, 9, 3, 1, 7, 8, 0, 9, 6, 5]
    np.testing.assert_allclose(arrays["mean"], [0.4962, 0.5002, 0.4963], atol=1e-4)
    np.testing.assert_allclose(arrays["std"], [0.2847, 0.2853, 0.2856], atol=1e-4)


def test_rows_run_along_rows_and_columns_along_columns(arrays):
    images, labels = arrays["test_images"].astype(np.float32), arrays["test_fine"]
    along_rows = np.abs(np.diff(images, axis=2)).mean((1, 2, 3))
    along_columns = np.abs(np.diff(images, axis=1)).mean((1, 2, 3))
    ratio = along_rows / along_columns
    rows, columns = (ratio[labels == synthetic.CLASS_NAMES.index(n)] for n in ("rows", "columns"))
    assert np.mean(rows < 1) > 0.95 and np.mean(columns > 1) > 0.95


def _ridge_accuracy(arrays, features, penalty):
    """Returns the test accuracy of ridge regression on one-hot labels."""
    x, test_x = (features(arrays[f"{s}_images"] / np.float32(255)) for s in ("train", "test"))
    x, test_x = (np.c_[v, np.ones(len(v), np.float32)] for v in (x, test_x))
    targets = np.eye(10, dtype=np.float32)[arrays["train_fine"]]
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1], dtype=x.dtype), x.T @ targets)
    return np.mean(np.argmax(test_x @ weights, axis=1) == arrays["test_fine"])


def test_mean_color_is_not_predictive(arrays):
    assert _ridge_accuracy(arrays, lambda images: images.mean((1, 2)), 1.0) < 0.15


def test_linear_classifier_on_pixels_is_poor(arrays):
    def half_size(images):
        return images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).reshape(len(images), -1)

    assert _ridge_accuracy(arrays, half_size, 100.0) < 0.4
