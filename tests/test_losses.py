import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.losses import cross_entropy

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="compares with torch: make reference")

RNG = np.random.default_rng(0)
LOGITS = (5 * RNG.standard_normal((64, 100))).astype(np.float32)
LABELS = RNG.integers(0, 100, 64).astype(np.int32)


def test_loss_of_two_classes_equals_a_calculation_by_hand():
    logits = np.float32([[0.0, np.log(3.0)]])  # probabilities 1/4 and 3/4
    for label, smoothing, wanted in (
        (1, 0.0, np.log(4 / 3)),
        (0, 0.0, np.log(4.0)),
        (1, 0.2, 0.9 * np.log(4 / 3) + 0.1 * np.log(4.0)),
    ):
        losses = cross_entropy(logits, np.array([label]), smoothing)
        np.testing.assert_allclose(losses, [wanted], rtol=1e-6)


def torch_cross_entropy(logits, label_smoothing):
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(LABELS).long(), reduction="none", label_smoothing=label_smoothing
    )


@needs_torch
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_loss_and_gradient_equal_pytorch(label_smoothing):
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = torch_cross_entropy(logits, label_smoothing)
    expected.sum().backward()
    losses = cross_entropy(LOGITS, LABELS, label_smoothing)
    grads = jax.grad(lambda x: cross_entropy(x, LABELS, label_smoothing).sum())(LOGITS)
    assert losses.shape == (64,) and losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(grads, logits.grad, atol=1e-6)


@needs_torch
def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    losses = cross_entropy(logits, LABELS, 0.1)
    assert losses.dtype == jnp.float32
    expected = torch_cross_entropy(torch.tensor(np.asarray(logits, np.float32)), 0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@needs_torch
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_huge_logits_stay_finite(label_smoothing):
    huge = 1e4 * LOGITS
    expected = torch_cross_entropy(torch.tensor(huge), label_smoothing)
    np.testing.assert_allclose(cross_entropy(huge, LABELS, label_smoothing), expected, rtol=1e-5)
    grads = jax.grad(lambda x: cross_entropy(x, LABELS, label_smoothing).sum())(huge)
    assert np.isfinite(grads).all()
