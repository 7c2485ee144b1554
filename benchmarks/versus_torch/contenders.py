"""Creates the two sides of the comparison."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import harness, torch_models
from benchmarks.harness import TimedLoop
from benchmarks.torch_models import weights
from benchmarks.versus_torch.settings import Setting
from cifar_jax import augment, engine, gpu_graph, models, optim, step
from cifar_jax.metrics import fetch
from cifar_jax.step import TrainState

NUM_CLASSES = 100
# Creates an optimizer from parameters and the argument `fused`.
MakeOptimizer = Callable[..., torch.optim.Optimizer]


class Case(NamedTuple):
    """A network and the batches that both sides train it on.

    Attributes:
      model: The name of the network.
      batch_size: The number of images per step, a divisor of N.
      dtype: The dtype of the computation; "bfloat16" is autocast in PyTorch.
      images: [N, 32, 32, 3] uint8.
      labels: [N] int32.
    """

    model: str
    batch_size: int
    dtype: str
    images: np.ndarray
    labels: np.ndarray


def make_optimizers(model: str) -> tuple[str, optax.GradientTransformation, MakeOptimizer]:
    """Returns an optimizer as its description, an optax transformation and a PyTorch factory."""
    if model.startswith("resnet"):
        options = dict(momentum=0.9, nesterov=True, weight_decay=5e-4)
        optimizer = optim.create("sgd", 0.1, **options)
        make_torch_optimizer = partial(torch.optim.SGD, lr=0.1, **options)
        return "sgd 0.1, Nesterov 0.9, decay 5e-4", optimizer, make_torch_optimizer
    return "adam 1e-3", optim.create("adam", 1e-3), partial(torch.optim.Adam, lr=1e-3)


def make_jax(
    case: Case, optimizer: optax.GradientTransformation
) -> tuple[TimedLoop, TrainState, float]:
    """Creates the JAX contender.

    Args:
      case: The network and its batches.
      optimizer: The optimizer.

    Returns:
      The contender, its state before the first step, and its compilation time in seconds.
    """

    def build(rngs):
        return models.create(case.model, NUM_CLASSES, rngs, dtype=jnp.dtype(case.dtype))

    networks = step.split_networks(build)
    train_step = step.make_train_step(
        networks.train,
        optimizer,
        augment=augment.parse(""),
        preprocess=partial(augment.normalize, mean=0.5, std=0.25, dtype=jnp.dtype(case.dtype)),
    )
    runner = engine.create(
        lambda axis_name: train_step,
        partial(step.init, build, optimizer),
        case.images,
        case.labels,
        batch_size=case.batch_size,
        mesh=engine.make_mesh(jax.local_devices()[:1]),
        cuda_graph=gpu_graph.decide("auto"),
    )
    state, metrics = runner.init(), runner.no_metrics()
    plan = runner.plan(state, 0)

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = runner.run(state, metrics, plan, num_steps)
        harness.check_loss(fetch(metrics)["loss"])

    return run, runner.init(), runner.compile_seconds


def make_torch(
    case: Case,
    make_optimizer: MakeOptimizer,
    state: TrainState,
    setting: Setting,
    device: str | None = None,
) -> TimedLoop:
    """Creates a PyTorch contender.

    Args:
      case: The network and its batches.
      make_optimizer: Creates the optimizer from the parameters and the argument `fused`.
      state: The state from which the weights and running statistics are copied.
      setting: The options with which PyTorch runs.
      device: "cpu" or "cuda"; JAX's default device if None.
    """
    device = device or ("cpu" if jax.default_backend() == "cpu" else "cuda")
    # Use TF32 as XLA does for float32 on GPUs.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of running eagerly
    module = torch_models.create(case.model, NUM_CLASSES)
    weights.transplant(state.params, state.batch_stats, module)
    module = module.to(device, memory_format=setting.layout).train()
    optimizer = make_optimizer(module.parameters(), fused=setting.fused)
    x = (torch.tensor(case.images, device=device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    x = x.contiguous(memory_format=setting.layout).split(case.batch_size)
    y = torch.tensor(case.labels, device=device).long().split(case.batch_size)

    def compute_loss(images, labels):
        with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            logits = module(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    if setting.compiled:
        # All cases share the code of compute_loss. Without a reset, the second network would be
        # compiled for dynamic batch sizes, and the ninth would not be compiled at all.
        torch.compiler.reset()
        compute_loss = torch.compile(compute_loss, mode=setting.compiled, dynamic=False)
    num_done = 0

    def run(num_steps: int) -> None:
        nonlocal num_done
        for i in range(num_done, num_done + num_steps):
            optimizer.zero_grad()
            loss = compute_loss(x[i % len(x)], y[i % len(y)])
            loss.backward()
            optimizer.step()
        num_done += num_steps
        harness.check_loss(loss.item())

    return run
