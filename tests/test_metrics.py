import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax import metrics


def test_accuracies_equal_scikit_learn():
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


def test_the_lower_class_of_equal_logits_ranks_first_as_in_argmax():
    logits = jnp.zeros((20, 20))
    labels = jnp.arange(20)
    ahead = metrics.num_ahead(logits, labels)
    np.testing.assert_array_equal(ahead < 1, labels == logits.argmax(axis=-1))
    assert (ahead < 5).sum() == 5


def test_a_label_whose_logit_is_not_finite_counts_as_wrong():
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        logits = jnp.zeros((1, 3)).at[0, 1].set(value)
        assert metrics.num_ahead(logits, jnp.array([1])) == 3
    np.testing.assert_array_equal(
        metrics.num_ahead(jnp.float32([[jnp.nan, 1, 2]]), jnp.array([1])), [1]
    )


def test_padding_does_not_count_even_if_its_loss_is_nan():
    losses, weights = jnp.float32([1, 3, jnp.nan]), jnp.float32([1, 1, 0])
    found = metrics.measure(jnp.eye(3), jnp.array([0, 2, 2]), losses, weights)
    np.testing.assert_array_equal(found.sums, [4, 1, 2, 2])


def test_the_mean_over_no_examples_is_nan():
    assert np.isnan(list(metrics.fetch(metrics.Metrics.empty()).values())).all()


def test_checkpoints_have_the_layout_of_clu():
    """Workdirs made before the sums were packed into one array must stay readable."""
    clu_metrics = pytest.importorskip("clu.metrics")
    average = clu_metrics.Average(jnp.float32(0), jnp.int32(0))
    names = ("loss", "accuracy", "top5_accuracy")
    collection = clu_metrics.Collection.create_collection(**dict.fromkeys(names, average))
    ours, theirs = (
        {jax.tree_util.keystr(path, simple=True): leaf.dtype for path, leaf in leaves}
        for leaves in map(
            jax.tree_util.tree_leaves_with_path,
            (metrics.to_checkpoint(metrics.Metrics.empty()), collection),
        )
    )
    assert ours == theirs
    sums = jnp.float32([12.5, 3, 7, 9])
    tree = metrics.to_checkpoint(metrics.Metrics(sums))
    assert tree["top5_accuracy"] == {"total": 7, "count": 9}
    assert tree["loss"]["count"].dtype == jnp.int32
    np.testing.assert_array_equal(metrics.from_checkpoint(tree).sums, sums)


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
