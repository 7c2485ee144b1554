"""Lists and draws the layers of a network, found by tracing it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from matplotlib.figure import Figure

from cifar_jax import data, models
from cifar_jax.models.rngs import make_rngs
from cifar_jax.report import figures
from cifar_jax.report.read import Run


class Layer(NamedTuple):
    """One call of a layer.

    Attributes:
      path: Path of the module in the network, such as "stages/0/1/conv1".
      kind: Name of its class.
      shape: Shape of its output without the batch dimension, (H, W, C) or (C,).
      num_params: Number of trainable parameters.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    num_params: int


def of_run(run: Run) -> list[Layer]:
    """Returns the layers of a run's network, or an empty list if this version cannot build it."""
    options = {
        name.removeprefix("model."): value
        for name, value in run.config.items()
        if name.startswith("model.") and name != "model.name"
    }
    num_classes = data.num_classes(run.config["data.name"], run.config["data.label"])
    image_size = run.config.get("augment.resize") or models.IMAGE_SIZE
    try:
        return layers(run.config["model.name"], num_classes, options, image_size)
    except Exception:  # the options are from an older version, or were edited
        return []


def layers(
    name: str, num_classes: int, options: dict, image_size: int = models.IMAGE_SIZE
) -> list[Layer]:
    """Returns the calls of all leaf modules in order, without computing anything.

    Args:
      name: The network, a key of models.MODELS.
      num_classes: Number of classes.
      options: Options of the network.
      image_size: Height and width of the images in pixels.
    """
    calls: list[Layer] = []

    def recorded(path, node):
        is_leaf = isinstance(node, nnx.Module) and not any(
            isinstance(child, nnx.Module) for _, child in nnx.iter_children(node)
        )
        return _Recorded(node, "/".join(map(str, path)), calls.append) if is_leaf else node

    def trace():
        model = models.create(
            name, num_classes, make_rngs(params=0), image_size=image_size, **options
        )
        model = nnx.view(
            model, raise_if_not_found=False, deterministic=True, use_running_average=True
        )
        # nnx.capture would record the outputs too, but not the order of the calls.
        return nnx.recursive_map(recorded, model)(jnp.zeros((1, image_size, image_size, 3)))

    nnx.eval_shape(trace)
    return calls


class _Recorded(nnx.Module):
    """Wraps a layer of the network and records each of its calls as a `Layer`."""

    def __init__(self, layer: nnx.Module, path: str, record: Callable[[Layer], None]):
        self.layer, self.path, self.record = layer, path, record

    def __call__(self, *args, **kwargs):
        out = self.layer(*args, **kwargs)
        params = jax.tree.leaves(nnx.state(self.layer, nnx.Param))
        num_params = sum(math.prod(leaf.shape) for leaf in params)
        kind = type(self.layer).__name__
        self.record(Layer(self.path, kind, tuple(out.shape[1:]), num_params))
        return out


def drawn(calls: list[Layer]) -> list[Layer]:
    """Returns the layers shown in the diagram."""
    return [layer for layer in calls if layer.num_params and "Norm" not in layer.kind]


@figures.styled
def diagram(calls: list[Layer]) -> Figure:
    """Draws the layers with parameters as blocks, as a wide figure.

    The height of a block shows the resolution, and its label is the number of channels.
    Normalization layers are omitted.
    """
    shown = drawn(calls)
    width = max(5.2, 0.42 * len(shown) + 1.2)
    figure = figures.new((width, 3.6))
    axes = figure.subplots()
    for i, layer in enumerate(shown):
        is_map = len(layer.shape) == 3
        height = math.log2(layer.shape[0]) + 1 if is_map else 0.6
        color = figures.COLORS[5] if is_map else figures.COLORS[4]
        axes.bar(i, height, width=0.74, color=color, edgecolor="#333333", lw=0.6)
        axes.text(
            i, height + 0.12, f"{layer.shape[-1]:,}", ha="center", va="bottom", fontsize=8,
            rotation=90 if len(shown) > 12 else 0,
        )  # fmt: skip
    sizes = sorted({layer.shape[0] for layer in shown if len(layer.shape) == 3})
    axes.set_yticks([math.log2(s) + 1 for s in sizes], [f"{s} x {s}" for s in sizes])
    axes.set_ylim(0, (math.log2(max(sizes, default=1)) + 1) * 1.25 + 0.5)
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_xticks([])
    axes.set(xlabel="layers with weights, labeled with their channels",
             ylabel="output resolution (pixels)")  # fmt: skip
    axes.grid(False)
    return figure
