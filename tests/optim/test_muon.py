import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cifar_jax import optim
from cifar_jax.errors import UserError
from cifar_jax.optim.muon import newton_schulz, orthogonalize, rescaled

RNG = np.random.default_rng(0)
SHAPES = {"wide": (3, 3, 64, 256), "thin": (3, 3, 8, 16), "dense": (20, 10)}
PARAMS = {
    name: {"kernel": RNG.standard_normal(shape).astype(np.float32)}
    for name, shape in SHAPES.items()
}


def numpy_newton_schulz(matrix, num_iterations=3):
    """Orthogonalizes a matrix [R, C] approximately, in float64."""
    x = matrix.astype(np.float64)
    x = x / (np.sqrt((x**2).sum()) + 1e-7)
    for _ in range(num_iterations):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


@pytest.mark.parametrize("shape", [(4, 6, 30), (4, 30, 6), (1, 8, 8), (2, 1, 5)])
def test_newton_schulz_equals_numpy(shape):
    matrices = RNG.standard_normal(shape).astype(np.float32)
    for num_iterations in (3, 5):
        wanted = [numpy_newton_schulz(matrix, num_iterations) for matrix in matrices]
        found = jax.jit(newton_schulz, static_argnums=1)(matrices, num_iterations)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_newton_schulz_computes_in_float32_and_keeps_zeros():
    matrices = RNG.standard_normal((2, 4, 9)).astype(np.float32)
    matrices[1] = 0
    found = newton_schulz(jnp.asarray(matrices, jnp.bfloat16))
    assert found.dtype == jnp.float32
    wanted = newton_schulz(jnp.asarray(matrices, jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(found, wanted)
    assert not np.any(found[1])


def torch_newton_schulz(torch, matrix, num_iterations=3):
    """Orthogonalizes a matrix [R, C] as airbench94_muon does, in its own dtype."""
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.size(0) > x.size(1)
    x = x.T if is_tall else x
    for _ in range(num_iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if is_tall else x


@pytest.mark.parametrize("shape", [(1, 64, 576), (2, 300, 40)])
def test_newton_schulz_in_bfloat16_differs_from_pytorch_by_rounding(shape):
    torch = pytest.importorskip("torch")
    matrices = RNG.standard_normal(shape).astype(np.float32)
    found = newton_schulz(matrices, dtype="bfloat16")
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, found.astype(jnp.bfloat16))
    for matrix, ours in zip(matrices, found, strict=True):
        theirs = torch_newton_schulz(torch, torch.tensor(matrix).bfloat16()).float().numpy()
        exact = numpy_newton_schulz(matrix)
        size = np.linalg.norm(exact)
        # Roundings to 8 bits are off by up to 0.4%, and the terms of the polynomial partly cancel.
        # PyTorch rounds every sum, and differs from the exact result by 2%.
        assert np.linalg.norm(ours - theirs) < 0.04 * size
        assert 0.001 * size < np.linalg.norm(ours - exact) < 0.02 * size


def test_newton_schulz_moves_singular_values_together():
    found = newton_schulz(RNG.standard_normal((3, 16, 64)), 5)
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3


def test_kernels_of_equal_shape_are_orthogonalized_together_and_as_if_alone():
    trees = {f"{name}{i}": (i + 1) * p["kernel"] for name, p in PARAMS.items() for i in range(2)}
    trees["flat"] = RNG.standard_normal((72, 16)).astype(np.float32)  # as "thin" reshaped
    transform = orthogonalize()
    together, _ = transform.update(trees, transform.init(trees))
    for name, kernel in trees.items():
        alone, _ = transform.update({name: kernel}, transform.init({name: kernel}))
        np.testing.assert_allclose(together[name], alone[name], atol=1e-6)
        matrix = kernel.reshape(-1, kernel.shape[-1]).T  # [output features, everything else]
        wanted = numpy_newton_schulz(matrix).T.reshape(kernel.shape)
        np.testing.assert_allclose(together[name], wanted, atol=1e-5)
    program = jax.jit(lambda tree: transform.update(tree, optax.EmptyState())[0])
    products = str(jax.make_jaxpr(program)(trees)).count("dot_general")
    assert products == 3 * 3 * len(SHAPES)  # three per iteration and shape


def train_ours(params, gradients, *, rescales, **options):
    optimizer = optim.create("muon", **options)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        if rescales:
            params = rescaled(params, lambda path: path[0] != "dense")
        updates, state = optimizer.update(grads, state, params)
        updates = jax.tree.map(lambda update: 0.24 * update, updates)
        return optax.apply_updates(params, updates), state

    for grads in gradients:
        params, state = step(params, state, grads)
    return params


def train_torch(params, gradients, momentum, nesterov, rescales, weight_decay):
    """Trains kernels {name: [O, I, H, W]} with Muon as in airbench94_muon, in float32."""
    torch = pytest.importorskip("torch")
    kernels = {name: torch.tensor(kernel) for name, kernel in params.items()}
    buffers = {name: torch.zeros_like(kernel) for name, kernel in kernels.items()}
    for grads in gradients:
        for name, kernel in kernels.items():
            grad = torch.tensor(grads[name])
            buffers[name] = momentum * buffers[name] + grad
            direction = grad + momentum * buffers[name] if nesterov else buffers[name]
            if rescales and name != "dense":
                kernel *= len(kernel) ** 0.5 / kernel.norm()
            update = torch_newton_schulz(torch, direction.reshape(len(kernel), -1))
            update = update.reshape(kernel.shape)
            kernel -= 0.24 * (update + weight_decay * kernel)
    return {name: kernel.numpy() for name, kernel in kernels.items()}


def to_torch(tree):
    """Transposes HWIO kernels to OIHW, and dense ones to [O, I]."""
    return {
        name: np.moveaxis(np.asarray(p["kernel"]), (-1, -2), (0, 1)).copy()
        for name, p in tree.items()
    }


@pytest.mark.parametrize(
    ("momentum", "nesterov", "rescales", "weight_decay"),
    [(0.6, True, True, 0.0), (0.6, False, False, 0.1), (0.0, False, True, 0.0)],
)
def test_five_steps_equal_pytorch(momentum, nesterov, rescales, weight_decay):
    gradients = [
        jax.tree.map(lambda p: RNG.standard_normal(p.shape).astype(np.float32), PARAMS)
        for _ in range(5)
    ]
    theirs = train_torch(
        to_torch(PARAMS), map(to_torch, gradients), momentum, nesterov, rescales, weight_decay
    )
    options = dict(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    ours = to_torch(train_ours(PARAMS, gradients, rescales=rescales, **options))
    for name, kernel in theirs.items():
        np.testing.assert_allclose(ours[name], kernel, rtol=0, atol=1e-4 * np.abs(kernel).max())


def test_rescaled_sets_the_norm_of_the_chosen_kernels():
    params = jax.tree.map(jnp.asarray, PARAMS) | {"zero": {"kernel": jnp.zeros((3, 2))}}
    found = rescaled(params, lambda path: path[0] != "thin")
    norms = {name: float(jnp.linalg.norm(p["kernel"])) for name, p in found.items()}
    assert norms["wide"] == pytest.approx(16, rel=1e-5)
    assert norms["dense"] == pytest.approx(10**0.5, rel=1e-5)
    assert norms["zero"] == 0
    np.testing.assert_array_equal(found["thin"]["kernel"], params["thin"]["kernel"])


def test_a_parameter_that_is_no_kernel_is_refused():
    params = PARAMS | {"norm": {0: {"bias": np.zeros(3)}}}
    with pytest.raises(UserError, match=r"norm/0/bias has fewer than two dim.* in optim\.groups"):
        optim.create("muon").init(params)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match=r"unknown optim.newton_schulz_dtype 'float16'"):
        optim.create("muon", newton_schulz_dtype="float16")
