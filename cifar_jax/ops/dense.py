"""The matrix product of a dense layer in the form that each platform runs fastest.

XLA's CPU compiler passes matrix products to Eigen unchanged. The gradient with respect to a dense
layer's inputs contracts over the columns of the kernel, which takes up to seven times longer than
with explicit transposes: 4.7 ms instead of 0.65 ms for 32 inputs of a layer with 2,048 inputs and
512 units, on one core of a Zen 4. Transposing the result in blocks shortens a step of cnn2, cnn3
and cnn4 by 4 to 6% on two cores of a Xeon (benchmarks/results/checks/dense_transpose.txt).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# Rows of a block of `_transposed`, unless there would be more than _MAX_BLOCKS blocks.
_BLOCK_ROWS, _MAX_BLOCKS = 256, 64
_ROWS_BY_COLUMNS = (((1,), (0,)), ((), ()))


def dot_general(
    lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None, out_sharding=None
):
    """Computes `jax.lax.dot_general`, with a custom gradient on CPUs for [B, I] by [I, O].

    The custom gradient needs operands of the same dtype; for those, only reverse-mode
    differentiation is defined. The arguments and the result are those of `jax.lax.dot_general`, so
    that it can be passed as `nnx.Linear(dot_general=...)`. The form is selected when a program is
    lowered, see `conv`.
    """
    reference = functools.partial(
        lax.dot_general,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    is_dense = (
        lhs.ndim == rhs.ndim == 2
        and lhs.dtype == rhs.dtype
        and (preferred_element_type is None or preferred_element_type == lhs.dtype)
        and out_sharding is None
        and jax.tree.map(int, dimension_numbers) == _ROWS_BY_COLUMNS
    )
    if not is_dense:
        return reference(lhs, rhs)
    on_cpu = functools.partial(_dense, precision)
    return lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=reference)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dense(precision, inputs, kernel):
    return lax.dot(inputs, kernel, precision=precision)


def _forward(precision, inputs, kernel):
    return _dense(precision, inputs, kernel), (inputs, kernel)


def _backward(precision, residuals, grad):
    inputs, kernel = residuals
    # The barriers keep XLA from folding the transposes into the product.
    columns = lax.optimization_barrier(grad.T)
    product = lax.optimization_barrier(lax.dot(kernel, columns, precision=precision))
    inputs_grad = _transposed(product)
    over_rows = (((0,), (0,)), ((), ()))
    return inputs_grad, lax.dot_general(inputs, grad, over_rows, precision=precision)


def _transposed(matrix):
    """Transposes a matrix in blocks of rows, which stay in the cache while XLA reads columns."""
    rows = max(_BLOCK_ROWS, -(-len(matrix) // _MAX_BLOCKS))
    blocks = [matrix[i : i + rows].T for i in range(0, len(matrix), rows)]
    if len(blocks) == 1:
        return blocks[0]
    # The barriers keep XLA from fusing the blocks into one transpose again.
    return lax.optimization_barrier(jnp.concatenate(lax.optimization_barrier(blocks), axis=1))


_dense.defvjp(_forward, _backward)
