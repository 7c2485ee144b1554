import numpy as np
import pytest
import reporting

from cifar_jax.data.superclasses import SUPERCLASSES, superclass_of
from cifar_jax.report import analysis


def test_confusion_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    labels, logits = reporting.draw_predictions()
    ours = analysis.confusion(labels, logits.argmax(1), 100)
    np.testing.assert_array_equal(ours, metrics.confusion_matrix(labels, logits.argmax(1)))


def test_classes_without_images_keep_their_index():
    matrix = analysis.confusion(np.array([0, 0]), np.array([2, 0]), 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 0, 0], [0, 0, 0]])
    rates = analysis.error_rates(matrix)
    np.testing.assert_array_equal(rates, [0.5, np.nan, np.nan])
    assert analysis.from_worst(np.array([0.25, np.nan, 0.5])) == [2, 0]


def test_confusion_within_a_group_is_correct_by_group():
    matrix = np.array([[5, 3, 0], [1, 6, 1], [0, 2, 9]])
    np.testing.assert_array_equal(analysis.by_group(matrix, [0, 0, 1], 2), [[15, 1], [2, 9]])


def test_most_confused_pairs_are_sorted_and_nonzero():
    matrix = np.array([[5, 3, 0], [7, 6, 0], [0, 1, 9]])
    assert analysis.most_confused(matrix, 2) == [(1, 0, 7), (0, 1, 3)]
    assert len(analysis.most_confused(matrix, 9)) == 3


def test_calibration_equals_scikit_learn():
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    labels, logits = reporting.draw_predictions()
    found = analysis.calibration(logits, labels, num_bins=10)
    confidence = analysis.probabilities(logits).max(1)
    accuracy, mean = curve(logits.argmax(1) == labels, confidence, n_bins=10)
    full = found.counts > 0
    np.testing.assert_allclose(found.accuracy[full], accuracy)
    np.testing.assert_allclose(found.confidence[full], mean)
    gap = np.abs(accuracy - mean) * found.counts[full]
    assert found.error == pytest.approx(gap.sum() / len(labels))
    assert found.counts.sum() == len(labels)


def test_probabilities_of_huge_logits():
    found = analysis.probabilities(np.float32([[1e4, 1e4, -1e4]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]])


def test_every_class_has_one_superclass():
    assert len(SUPERCLASSES) == 20 and {len(names) for names in SUPERCLASSES.values()} == {5}
    assert len(reporting.FINE) == len(set(reporting.FINE)) == 100
    groups = superclass_of(reporting.FINE)
    assert groups[reporting.FINE.index("otter")] == "aquatic_mammals"
    assert superclass_of(("cat", "dog")) is None
