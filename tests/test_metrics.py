import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax import metrics


def test_accuracies_equal_those_of_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 20)).astype(np.float32)
    labels = rng.integers(0, 20, 200)
    losses = rng.uniform(size=200).astype(np.float32)
    weights = (np.arange(200) < 150).astype(np.float32)
    values = metrics.fetch(metrics.measure(logits, labels, losses, weights))
    for name, k in (("accuracy", 1), ("top5_accuracy", 5)):
        wanted = sklearn_metrics.top_k_accuracy_score(
            labels[:150], logits[:150], k=k, labels=range(20)
        )
        assert values[name] == pytest.approx(wanted)
    assert values["loss"] == pytest.approx(losses[:150].mean())


def test_of_equal_logits_the_lower_class_goes_first_as_in_argmax():
    logits = jnp.zeros((20, 20))
    labels = jnp.arange(20)
    np.testing.assert_array_equal(
        metrics.in_top_k(logits, labels, 1), labels == logits.argmax(axis=-1)
    )
    assert metrics.in_top_k(logits, labels, 5).sum() == 5


def test_a_label_without_a_number_is_no_hit():
    assert not metrics.in_top_k(jnp.full((1, 3), jnp.nan), jnp.array([0]), 1).any()


def test_merging_batches_equals_measuring_them_together():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(30, 10)), rng.integers(0, 10, 30)
    losses = rng.uniform(size=30)
    ones = np.ones(30)
    whole = metrics.measure(logits, labels, losses, ones)
    parts = metrics.Metrics.empty()
    for rows in (slice(0, 10), slice(10, 30)):
        parts = parts.merge(metrics.measure(logits[rows], labels[rows], losses[rows], ones[rows]))
    assert metrics.fetch(parts) == pytest.approx(metrics.fetch(whole))
