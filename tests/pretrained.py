"""Networks for tests of cifar_jax.transfer, and files of weights for them."""

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from cifar_jax import models, transfer

# A VGG16 of a few kilobytes.
TINY_VGG16 = (2, 2, "M", 2, 2, "M", *(3,) * 3, "M", *(4,) * 3, "M", *(4,) * 3, "M", "F")


class Network:
    """A network without arrays.

    Args:
      name: Key of models.MODELS.
      num_classes: Number of logits.
      **options: Options of the network.
    """

    def __init__(self, name, num_classes=10, **options):
        self.name = name
        model = nnx.eval_shape(
            lambda: models.create(name, num_classes, nnx.Rngs(params=0), **options)
        )
        self._model = nnx.view(
            model, deterministic=True, use_running_average=True, raise_if_not_found=False
        )
        self.params, self.batch_stats = (
            nnx.to_pure_dict(state) for state in nnx.state(model, nnx.Param, nnx.BatchStat)
        )
        self.head = model.head_paths() if hasattr(model, "head_paths") else ()

    def is_head(self, path):
        return any(path[: len(prefix)] == prefix for prefix in self.head)

    def load(self, weights):
        return transfer.load(str(weights), self.name, self, self.is_head)

    def shapes(self):
        """Returns {path: shape} of the arrays of the body."""
        arrays = flatten_dict(self.params) | flatten_dict(self.batch_stats)
        return {path: array.shape for path, array in arrays.items() if not self.is_head(path)}

    def features(self, pretrained, images):
        return self._apply(pretrained, lambda model: model.features(images))

    def logits(self, pretrained, images):
        return self._apply(pretrained, lambda model: model(images))

    def _apply(self, pretrained, function):
        def fill(template, arrays):
            zeros = {p: np.zeros(a.shape, a.dtype) for p, a in flatten_dict(template).items()}
            return nnx.State(unflatten_dict(zeros | flatten_dict(arrays)))

        states = (
            fill(self.params, pretrained.params),
            fill(self.batch_stats, pretrained.batch_stats),
        )
        graphdef = nnx.split(self._model)[0]
        forward = jax.jit(lambda *states: function(nnx.merge(graphdef, *states)))
        return np.asarray(forward(*states))


def random_arrays(shapes, seed=0):
    """Returns {name: float32 array} whose layers keep the size of their inputs about constant."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        leaf = name[-1] if isinstance(name, tuple) else name
        if leaf.endswith(("var", "moving_variance", "scale", "gamma")):
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            array = rng.normal(0, 0.1, shape)
        else:
            array = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
        arrays[name] = array.astype(np.float32)
    return arrays


def write_hdf5(path, layers):
    """Writes {layer: {name: array}} in the legacy layout, with the names of Keras 1."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, arrays in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                group.create_dataset(name, data=array)


def keras_vgg16(arrays):
    """Returns {layer: {name: array}} for the arrays of a VGG16's body, as write_hdf5 takes them."""
    kernels = [p for p in arrays if p[-1] == "kernel"]
    blocks = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
    names = [f"block{block}_conv{i + 1}" for block, count in blocks for i in range(count)]
    layers = {}
    for name, path in zip(names, sorted(kernels), strict=True):
        bias = arrays[*path[:-1], "bias"]
        layers[name] = {f"{name}_W_1:0": arrays[path], f"{name}_b_1:0": bias}
        if name in ("block1_conv2", "block2_conv2"):
            layers[f"block{name[5]}_pool"] = {}
    return layers


def relative(ours, theirs):
    """Returns the largest difference, relative to the largest value; pytest -s shows it."""
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{difference:.1e}")
    return difference
