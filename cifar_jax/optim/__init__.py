"""The optimiser and its schedule from plain values, all of them optax's."""

import jax
import optax

from cifar_jax.errors import UserError, unknown
from cifar_jax.optim import callbacks, schedules

OPTIMIZERS = ("sgd", "adam", "adamw")


def create(
    name: str,
    learning_rate: optax.Schedule | float = 1.0,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    weight_decay_mask: str = "all",
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Builds the transformation of gradients into updates.

    Weight decay is coupled (added to the gradient, as PyTorch's SGD and Adam do) except in adamw,
    where it is decoupled (Loshchilov and Hutter, 2019). Keras' l2(x) is a coupled decay of 2 x.
    The rate multiplies sgd's velocity, as in PyTorch; in Keras it goes into it, which differs for
    some steps where the rate changes.

    Args:
      name: "sgd", "adam" or "adamw".
      learning_rate: a number, or a schedule of the step; 1 where the step is given the rate.
      momentum: sgd's; with 0 there is no buffer.
      nesterov: sgd's.
      beta1: adam's and adamw's decay of the first moment.
      beta2: adam's and adamw's decay of the second moment.
      eps: adam's and adamw's; outside the root.
      weight_decay: 0 for none.
      weight_decay_mask: "all", or "kernels" to leave out biases and normalisation.
      clip_norm: greatest global norm of the gradients; 0 for no clipping.

    Raises:
      UserError: for an unknown name or mask, and for a value out of its range.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimiser", name, OPTIMIZERS)
    if weight_decay_mask not in ("all", "kernels"):
        raise unknown("weight decay mask", weight_decay_mask, ("all", "kernels"))
    for field, value in (("weight_decay", weight_decay), ("clip_norm", clip_norm), ("eps", eps)):
        if not value >= 0:
            raise UserError(f"optim.{field} needs a value of 0 or more, not {value}")
    for field, value in (("momentum", momentum), ("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise UserError(f"optim.{field} needs a value from 0 to below 1, not {value}")
    if momentum and name != "sgd":
        raise UserError(f"optim.momentum is sgd's; {name} has optim.beta1")
    if nesterov and not momentum:
        raise UserError("optim.nesterov needs optim.momentum above 0")

    mask = kernels if weight_decay_mask == "kernels" else None
    parts = []
    if clip_norm:
        parts.append(optax.clip_by_global_norm(clip_norm))
    if weight_decay and name != "adamw":
        parts.append(optax.add_decayed_weights(weight_decay, mask))
    if name == "sgd":
        parts.append(optax.sgd(learning_rate, momentum or None, nesterov))
    elif name == "adam":
        parts.append(optax.adam(learning_rate, beta1, beta2, eps))
    else:
        parts.append(
            optax.adamw(learning_rate, beta1, beta2, eps, weight_decay=weight_decay, mask=mask)
        )
    return optax.chain(*parts)


def kernels(params) -> dict:
    """Returns the tree of booleans that is True at the leaves named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


__all__ = ["OPTIMIZERS", "callbacks", "create", "kernels", "schedules"]
