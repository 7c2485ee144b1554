"""Optax optimizers, created by name from plain values.

An optimizer is one function in OPTIMIZERS. It receives the learning rate and the fields of
`config.optim` that are among its keyword-only arguments, and returns an optax transformation. It
raises UserError for a field that is out of range. Its updates must be proportional to the learning
rate: it is created with a learning rate of 1, and the training step multiplies its updates by the
actual one.
"""

from collections.abc import Callable
from typing import Any

import optax

from cifar_jax.errors import check_kind, unknown
from cifar_jax.optim.masks import MASKS
from cifar_jax.optim.muon import muon
from cifar_jax.optim.options import (
    as_floats,
    check_options,
    keywords,
    pick,
    require,
    require_below_one,
    require_momentum,
)


def create(
    name: str,
    learning_rate: optax.Schedule | float = 1.0,
    *,
    weight_decay: float = 0.0,
    weight_decay_mask: str = "all",
    clip_norm: float = 0.0,
    **options: Any,
) -> optax.GradientTransformation:
    """Creates an optimizer.

    Weight decay is coupled, i.e. added to the gradient as in PyTorch's SGD and Adam, except in an
    optimizer that has its own argument `weight_decay`, such as adamw. Keras's l2(x) equals a
    coupled decay of 2 * x.

    Args:
      name: Key of OPTIMIZERS.
      learning_rate: A number or a schedule. Keep the default of 1 if the training step multiplies
        the updates by the learning rate.
      weight_decay: Coefficient of the weight decay; 0 for none.
      weight_decay_mask: "all", or "kernels" to exclude biases and normalization parameters.
      clip_norm: Max global norm of the gradients; 0 for no clipping.
      **options: Options of the optimizer. Those of other optimizers are ignored, except `momentum`
        and `nesterov`.

    Raises:
      UserError: If a name, option or mask is unknown, or a value is out of range.
    """
    check_options(
        name,
        OPTIMIZERS,
        options,
        kind="optimizer",
        field="optim.name",
        # Ignoring them would be misleading: adam has momentum too, but calls it beta1.
        exclusive=("momentum", "nesterov"),
    )
    check_kind("optim.weight_decay_mask", weight_decay_mask, "")
    if weight_decay_mask not in MASKS:
        raise unknown("weight decay mask", weight_decay_mask, MASKS)
    check_kind("optim.weight_decay", weight_decay, 0.0)
    check_kind("optim.clip_norm", clip_norm, 0.0)
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    require(clip_norm >= 0, "clip_norm", "at least 0", clip_norm)

    make = OPTIMIZERS[name]
    options |= {"weight_decay": weight_decay, "weight_decay_mask": weight_decay_mask}
    options = as_floats(options)
    transforms = []
    if clip_norm:
        transforms.append(optax.clip_by_global_norm(float(clip_norm)))
    if weight_decay and "weight_decay" not in keywords(make):
        transforms.append(optax.add_decayed_weights(float(weight_decay), MASKS[weight_decay_mask]))
    transforms.append(make(learning_rate, **pick(options, make)))
    return optax.chain(*transforms)


def sgd(
    learning_rate: optax.Schedule | float, *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent with optional momentum, as in PyTorch.

    The learning rate multiplies the velocity; in Keras it is part of the velocity, so the updates
    differ for some steps after a change of the learning rate.

    Args:
      learning_rate: A number or a schedule.
      momentum: Factor of the velocity at each step, in [0, 1); 0 allocates no buffer.
      nesterov: Whether to use Nesterov momentum.
    """
    require_momentum(momentum, nesterov)
    return optax.sgd(learning_rate, momentum or None, nesterov)


def adam(
    learning_rate: optax.Schedule | float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015).

    Args:
      learning_rate: A number or a schedule.
      beta1: Decay of the first moment, in [0, 1).
      beta2: Decay of the second moment, in [0, 1).
      eps: Number added to the denominator, outside the square root; 0 or more.
    """
    _require_adam(beta1, beta2, eps)
    return optax.adam(learning_rate, beta1, beta2, eps)


def adamw(
    learning_rate: optax.Schedule | float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    weight_decay_mask: str = "all",
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); see `adam` for options."""
    _require_adam(beta1, beta2, eps)
    mask = MASKS[weight_decay_mask]
    return optax.adamw(learning_rate, beta1, beta2, eps, weight_decay=weight_decay, mask=mask)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    function.__name__: function for function in (sgd, adam, adamw, muon)
}


def _require_adam(beta1: float, beta2: float, eps: float) -> None:
    require_below_one("beta1", beta1)
    require_below_one("beta2", beta2)
    require(eps >= 0, "eps", "at least 0", eps)
