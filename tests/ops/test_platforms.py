"""Checks that a program holds only the forms for the platform that it is lowered for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx
from jax import lax
from lowering import count_operations, program

from cifar_jax import models, step
from cifar_jax.ops.conv import conv_general_dilated
from cifar_jax.ops.dense import dot_general

NHWC = ("NHWC", "HWIO", "NHWC")
# 3x3 kernels take Winograd's form on CPUs.
SHAPES = (2, 8, 8, 16), (3, 3, 16, 16), (8 * 8 * 16, 10)
TRANSFORMATIONS = {
    "none": lambda f: f,
    "loop": lambda f: lambda *args: lax.fori_loop(0, 2, lambda _, carry: f(*carry), args),
    "vmap": lambda f: lambda x, *rest: jax.vmap(f, (0, None, None))(x[None], *rest),
}


def gradients(conv, dot, *args):
    """Returns the gradients of a convolution followed by a matrix product."""

    @jax.checkpoint
    def loss(images, kernel, weights):
        out = conv(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        inputs = out.reshape(out.shape[0], -1)
        return jnp.sum(jnp.sin(dot(inputs, weights, (((1,), (0,)), ((), ())))))

    return jax.grad(loss, (0, 1, 2))(*args)


def operations(platform, transformation, conv=conv_general_dilated, dot=dot_general):
    function = TRANSFORMATIONS[transformation](partial(gradients, conv, dot))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    counts = count_operations(program(function, *arrays, platform=platform))
    return {name: counts[name] for name in ("convolution", "dot_general", "optimization_barrier")}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_programs_for_accelerators_hold_only_operations_of_lax(platform, transformation):
    reference = operations(platform, transformation, lax.conv_general_dilated, lax.dot_general)
    assert reference["convolution"] == 3
    assert operations(platform, transformation) == reference


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_programs_for_cpus_hold_no_convolution_of_lax(transformation):
    counts = operations("cpu", transformation)
    assert counts["convolution"] == 3 * 6  # six products of Winograd's form for each


@pytest.mark.parametrize("name", ["cnn3", "resnet18"])
def test_a_networks_program_for_gpus_holds_only_lax_convolutions(name):
    create = partial(models.create, name, 10)
    optimizer = optax.sgd(0.1)
    train_step = step.make_train_step(
        step.split_networks(create).train,
        optimizer,
        augment=lambda key, images, *_: images,
        preprocess=jnp.float32,
    )
    state = jax.eval_shape(partial(step.init, create, optimizer), np.uint32(0))
    batch = step.Batch(*tiny.dataset(4).train, np.ones(4, np.float32), np.float32(4))
    modules = nnx.iter_modules(nnx.eval_shape(lambda: create(nnx.Rngs(0))))
    num_convolutions = sum(isinstance(module, nnx.Conv) for _, module in modules)
    by_platform = {
        platform: count_operations(program(train_step, state, batch, platform=platform))
        for platform in ("cuda", "cpu")
    }
    # The gradient of the images is not needed in the first layer.
    assert by_platform["cuda"]["convolution"] == 3 * num_convolutions - 1
    assert not by_platform["cuda"]["optimization_barrier"]
    assert by_platform["cpu"]["convolution"] > by_platform["cuda"]["convolution"]
    assert by_platform["cpu"]["optimization_barrier"]


def test_a_compiled_program_holds_no_conditional():
    arrays = [jnp.ones(shape) for shape in SHAPES]
    function = TRANSFORMATIONS["loop"](partial(gradients, conv_general_dilated, dot_general))
    compiled = jax.jit(function).lower(*arrays).compile().as_text()
    assert " convolution(" in compiled and " conditional(" not in compiled
