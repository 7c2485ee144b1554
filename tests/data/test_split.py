import numpy as np
import pytest

from cifar_jax.data import split
from cifar_jax.errors import UserError


@pytest.mark.parametrize(
    ("num_images", "fraction", "seed"),
    [(50_000, 0.17, 42), (50_000, 0.1, 0), (50_000, 0.15, 7), (1_001, 0.333, 1), (10, 0.05, 3)],
)
def test_equals_scikit_learn_in_content_and_order(num_images, fraction, seed):
    selection = pytest.importorskip("sklearn.model_selection")
    train, val = split.train_val_indices(num_images, fraction, seed)
    expected_train, expected_val = selection.train_test_split(
        np.arange(num_images), test_size=fraction, random_state=seed
    )
    np.testing.assert_array_equal(train, expected_train)
    np.testing.assert_array_equal(val, expected_val)


def test_published_split_has_41500_and_8500_images():
    train, val = split.train_val_indices(50_000, 0.17, 42)
    assert (len(train), len(val)) == (41_500, 8_500)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(50_000))
    # The result of scikit-learn 1.9.1, for machines on which it is not installed.
    assert train[:3].tolist() == [42615, 30051, 8206]
    assert val[:3].tolist() == [33553, 9427, 199]


def test_fraction_of_zero_keeps_every_image_in_order():
    train, val = split.train_val_indices(5, 0.0, 42)
    assert train.tolist() == [0, 1, 2, 3, 4] and val.tolist() == []


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 17, float("nan")])
def test_fraction_out_of_range_is_rejected(fraction):
    with pytest.raises(UserError, match=r"must be in \[0, 1\), got"):
        split.train_val_indices(100, fraction, 42)


def test_fraction_that_leaves_no_training_images_is_rejected():
    with pytest.raises(UserError, match="leaves no image"):
        split.train_val_indices(10, 0.99, 42)
