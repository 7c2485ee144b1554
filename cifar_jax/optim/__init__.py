"""Optax optimizers and schedules, created from plain values."""

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
    """Creates an optimizer.

    Weight decay is coupled, i.e. added to the gradient as in PyTorch's SGD and Adam, except in
    adamw, where it is decoupled (Loshchilov and Hutter, 2019). Keras's l2(x) equals a coupled decay
    of 2 * x. In sgd the learning rate multiplies the velocity, as in PyTorch; in Keras it is part
    of the velocity, which gives different updates for some steps after a change of learning rate.

    Args:
      name: "sgd", "adam" or "adamw".
      learning_rate: a number or a schedule. Keep the default of 1 if the train step multiplies the
        updates by the learning rate.
      momentum: momentum of sgd; 0 allocates no buffer.
      nesterov: whether sgd uses Nesterov momentum.
      beta1: decay of the first moment in adam and adamw.
      beta2: decay of the second moment in adam and adamw.
      eps: added to the denominator in adam and adamw, outside the square root.
      weight_decay: coefficient of the weight decay; 0 for none.
      weight_decay_mask: "all", or "kernels" to exclude biases and normalization parameters.
      clip_norm: max global norm of the gradients; 0 for no clipping.

    Raises:
      UserError: for an unknown name or mask, or a value out of range.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
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
    transforms = []
    if clip_norm:
        transforms.append(optax.clip_by_global_norm(clip_norm))
    if weight_decay and name != "adamw":
        transforms.append(optax.add_decayed_weights(weight_decay, mask))
    if name == "sgd":
        transforms.append(optax.sgd(learning_rate, momentum or None, nesterov))
    elif name == "adam":
        transforms.append(optax.adam(learning_rate, beta1, beta2, eps))
    else:
        transforms.append(
            optax.adamw(learning_rate, beta1, beta2, eps, weight_decay=weight_decay, mask=mask)
        )
    return optax.chain(*transforms)


def kernels(params) -> dict:
    """Returns a tree of booleans that is True at the leaves named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


__all__ = ["OPTIMIZERS", "callbacks", "create", "kernels", "schedules"]
