"""Counts the errors of a classifier."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax


class Pair(NamedTuple):
    """Images of one class that were predicted as another."""

    label: int
    prediction: int
    count: int


class Calibration(NamedTuple):
    """The accuracy of a classifier by its confidence.

    Attributes:
      edges: [bins + 1] edges of the confidence bins, in [0, 1].
      confidence: [bins] mean confidence of each bin, NaN if the bin is empty.
      accuracy: [bins] accuracy of each bin, NaN if the bin is empty.
      counts: [bins] number of images.
      error: The expected calibration error (Naeini et al., 2015), a fraction.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    error: float


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns [C, C] int64: the number of images of class i that were predicted as class j."""
    flat = np.asarray(labels, np.int64) * num_classes + predictions
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def by_group(matrix: np.ndarray, groups: Sequence[int], num_groups: int) -> np.ndarray:
    """Sums a confusion matrix [C, C] over groups of classes.

    Args:
      matrix: [C, C] counts by class.
      groups: The group of each class, in [0, G).
      num_groups: G.

    Returns:
      [G, G] counts by group.
    """
    member = np.eye(num_groups, dtype=matrix.dtype)[list(groups)]
    return member.T @ matrix @ member


def error_rates(matrix: np.ndarray) -> np.ndarray:
    """Returns [C] error rates of the classes, as fractions; NaN for a class without images."""
    counts = matrix.sum(axis=1)
    rates = 1 - np.diag(matrix) / np.maximum(counts, 1)
    return np.where(counts > 0, rates, np.nan)


def from_worst(rates: np.ndarray) -> list[int]:
    """Returns the classes that have images, in descending order of their error rate."""
    return [int(i) for i in np.argsort(-rates, kind="stable") if not np.isnan(rates[i])]


def most_confused(matrix: np.ndarray, count: int) -> list[Pair]:
    """Returns up to `count` pairs of class and wrong prediction, the most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [Pair(*map(int, np.unravel_index(i, wrong.shape)), int(wrong.flat[i])) for i in order]
    return [pair for pair in pairs if pair.count]


def calibration(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> Calibration:
    """Bins predictions by their confidence.

    Args:
      logits: Logits, [N, C].
      labels: True classes, [N].
      num_bins: Number of bins of equal width.
    """
    confidence, right = probabilities(logits).max(axis=1), logits.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, confidence, num_bins) / counts
        accuracy = np.bincount(bins, right, num_bins) / counts
    gaps = np.nan_to_num(np.abs(mean_confidence - accuracy))
    error = float((gaps * counts).sum() / max(len(labels), 1))
    return Calibration(edges, mean_confidence, accuracy, counts, error)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of [N, C] logits, float64."""
    return softmax(np.asarray(logits, np.float64), axis=1)
