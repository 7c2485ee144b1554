"""Muon: SGD with momentum whose updates are orthogonalized (Jordan et al., 2024).

Described at https://kellerjordan.github.io/posts/muon. The constants are those of the CIFAR-10
speedrun airbench94_muon (https://github.com/KellerJordan/cifar10-airbench), which orthogonalizes in
bfloat16; here that is an option.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cifar_jax.errors import UserError, unknown
from cifar_jax.optim.masks import MASKS
from cifar_jax.optim.options import require_momentum
from cifar_jax.tree_paths import Path, map_by_path

# The polynomial that each iteration applies to the singular values: a x + b x^3 + c x^5.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 3
NEWTON_SCHULZ_DTYPES = ("float32", "bfloat16")
# Added to norms, so that a zero matrix stays zero.
_EPS = 1e-7


def newton_schulz(
    matrices: jax.Array, num_iterations: int = NUM_ITERATIONS, dtype: str = "float32"
) -> jax.Array:
    """Returns matrices U f(S) V^T for matrices U S V^T: the singular values f(S) are roughly equal.

    Each matrix is first divided by its Frobenius norm, in float32. Transposed matrices give
    transposed results.

    Args:
      matrices: [N, R, C], of any floating-point dtype.
      num_iterations: The number of Newton-Schulz iterations.
      dtype: The dtype of the products and of the arrays between them, one of NEWTON_SCHULZ_DTYPES.
        Sums are computed in float32.

    Returns:
      [N, R, C] float32.
    """
    a, b, c = COEFFICIENTS
    x = matrices.astype(jnp.float32)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:  # the smaller of the two products of x and its transpose suffices
        x = x.swapaxes(1, 2)
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + _EPS)

    def rounded(x):
        return x.astype(dtype).astype(jnp.float32)

    def product(left, right):
        return (left.astype(dtype) @ right.astype(dtype)).astype(jnp.float32)

    x = rounded(x)
    for _ in range(num_iterations):
        gram = product(x, x.swapaxes(1, 2))
        # In bfloat16, the coefficients would be off by up to 0.2%.
        x = rounded(a * x + product(b * gram + c * product(gram, gram), x))
    return x.swapaxes(1, 2) if is_tall else x


def orthogonalize(dtype: str = "float32") -> optax.GradientTransformation:
    """Returns the transformation that applies `newton_schulz` to the update of every kernel.

    A kernel [..., O] with O output features is orthogonalized as the matrix [product of the other
    axes, O]. Kernels whose matrices have equal shapes are orthogonalized in one batch.

    Args:
      dtype: The dtype of the iterations; see `newton_schulz`.

    Raises:
      UserError: In `init`, if a parameter has fewer than two dimensions.
    """

    def check(path: Path, param: Any) -> None:
        if param.ndim < 2:
            raise UserError(
                f"optim.name 'muon' trains only kernels, but {'/'.join(map(str, path))} has fewer "
                "than two dimensions: choose another optimizer for such parameters in "
                "optim.groups, as in \"*/bias: name='sgd'\""
            )

    def init(params):
        map_by_path(check, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        leaves, structure = jax.tree.flatten(updates)
        same_shape = defaultdict(list)
        for i, leaf in enumerate(leaves):
            same_shape[math.prod(leaf.shape[:-1]), leaf.shape[-1]].append(i)
        for shape, indices in same_shape.items():
            matrices = jnp.stack([leaves[i].reshape(shape) for i in indices])
            results = newton_schulz(matrices, dtype=dtype)
            for i, result in zip(indices, results, strict=True):
                leaves[i] = result.reshape(leaves[i].shape).astype(leaves[i].dtype)
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformation(init, update)


def muon(
    learning_rate: optax.Schedule | float,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    weight_decay_mask: str = "all",
    newton_schulz_dtype: str = "auto",
) -> optax.GradientTransformation:
    """Muon, for kernels of convolutions and dense layers; see the module's docstring.

    This is not optax.contrib.muon, which orthogonalizes a bias-corrected mean of the gradients,
    weighs the latest gradient differently with Nesterov momentum, and scales the result by the
    shape of the matrix. Weight decay is decoupled, as in adamw: orthogonalization would discard the
    magnitude of a decay term in the gradient.

    Args:
      learning_rate: A number or a schedule.
      momentum: Factor of the velocity at each step, in [0, 1); 0 allocates no buffer.
      nesterov: Whether to use Nesterov momentum.
      weight_decay: This multiple of the weights is added to the update.
      weight_decay_mask: See config/base.py.
      newton_schulz_dtype: The dtype of the iterations, one of NEWTON_SCHULZ_DTYPES, or "auto" for
        float32. (A config's "auto" is replaced by the dtype of the network's computation.)
    """
    require_momentum(momentum, nesterov)
    if newton_schulz_dtype == "auto":
        newton_schulz_dtype = "float32"
    if newton_schulz_dtype not in NEWTON_SCHULZ_DTYPES:
        raise unknown("optim.newton_schulz_dtype", newton_schulz_dtype, NEWTON_SCHULZ_DTYPES)
    transforms = [orthogonalize(newton_schulz_dtype)]
    if momentum:
        transforms.insert(0, optax.trace(momentum, nesterov))
    if weight_decay:
        transforms.append(optax.add_decayed_weights(weight_decay, MASKS[weight_decay_mask]))
    return optax.chain(*transforms, optax.scale_by_learning_rate(learning_rate))


def rescaled(params: Any, is_chosen: Callable[[Path], bool]) -> Any:
    """Returns parameters in which the chosen kernels have Frobenius norm sqrt(output features).

    Where BatchNorm follows a layer, the norm of its kernel affects only the size of the updates
    relative to the kernel. Rescaling keeps that size constant, as in airbench94_muon.

    Args:
      params: Nested dict of arrays.
      is_chosen: Whether to rescale the kernel at a path.
    """

    def rescale(path: Path, param: jax.Array) -> jax.Array:
        if not is_chosen(path):
            return param
        return param * (math.sqrt(param.shape[-1]) / jnp.maximum(jnp.linalg.norm(param), _EPS))

    return map_by_path(rescale, params)
