import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.losses import cross_entropy

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
LOGITS = (5 * RNG.standard_normal((64, 100))).astype(np.float32)
LABELS = RNG.integers(0, 100, 64).astype(np.int32)


def torch_cross_entropy(logits, label_smoothing):
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(LABELS).long(), reduction="none", label_smoothing=label_smoothing
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_loss_and_gradient_are_those_of_pytorch(label_smoothing):
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = torch_cross_entropy(logits, label_smoothing)
    expected.sum().backward()
    losses = cross_entropy(LOGITS, LABELS, label_smoothing)
    grads = jax.grad(lambda x: cross_entropy(x, LABELS, label_smoothing).sum())(LOGITS)
    assert losses.shape == (64,) and losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(grads, logits.grad, atol=1e-6)


def test_label_smoothing_may_be_an_array():
    losses = jax.jit(cross_entropy)(LOGITS, LABELS, jnp.float32(0.1))
    np.testing.assert_allclose(losses, torch_cross_entropy(torch.tensor(LOGITS), 0.1), rtol=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    losses = cross_entropy(logits, LABELS, 0.1)
    assert losses.dtype == jnp.float32
    expected = torch_cross_entropy(torch.tensor(np.asarray(logits, np.float32)), 0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_huge_logits_stay_finite(label_smoothing):
    huge = 1e4 * LOGITS
    expected = torch_cross_entropy(torch.tensor(huge), label_smoothing)
    np.testing.assert_allclose(cross_entropy(huge, LABELS, label_smoothing), expected, rtol=1e-5)
    grads = jax.grad(lambda x: cross_entropy(x, LABELS, label_smoothing).sum())(huge)
    assert np.isfinite(grads).all()
