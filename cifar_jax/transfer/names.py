"""The names that other libraries give to the layers of our networks.

`keras` and `torchvision` return, for the path of each of our layers, the part that is common to the
names of its tensors: {("blocks", 0, "conv1"): "conv2_block1_1_conv/"} for Keras's
"conv2_block1_1_conv/kernel", and "layer1.0.conv1." for torchvision's "layer1.0.conv1.weight". A
layer that the library's network lacks is left out.
"""

import re
from collections.abc import Collection, Iterator, Sequence

from cifar_jax.errors import UserError
from cifar_jax.tree_paths import Path

Names = dict[Path, str]

_VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_DENSE = {
    "keras": ("fc1/", "fc2/", "predictions/"),
    "torchvision": ("classifier.0.", "classifier.3.", "classifier.6."),
    "timm": ("pre_logits.fc1.", "pre_logits.fc2.", "head.fc."),
}
# The layers of Xception's shortcuts are unnamed; Keras numbers such layers across the process.
_UNNAMED_CONV = re.compile(r"((?:conv|convolution)2d(?:_\d+)?/)kernel")
_UNNAMED_NORM = re.compile(r"(batch_?normalization(?:_\d+)?/)gamma")


def keras(model_name: str, paths: Collection[Path], tensors: Collection[str]) -> Names:
    """Returns the names in keras.applications.

    Args:
      model_name: The network's name in cifar_jax.models.
      paths: The paths of its arrays.
      tensors: The names of the tensors in the file, in their order.

    Raises:
      UserError: If keras.applications lacks the network, or has a different variant of it.
    """
    if model_name in _VGG_BLOCKS:
        convs = [
            f"block{block}_conv{i}/"
            for block, count in enumerate(_VGG_BLOCKS[model_name], 1)
            for i in range(1, count + 1)
        ]
        return _vgg(paths, convs, _DENSE["keras"])
    if model_name == "resnet50":
        _check_conventions(model_name, paths, "keras")
        names: Names = {("conv_stem",): "conv1_conv/", ("bn_stem",): "conv1_bn/"}
        for index, stage, i in _stages(paths, "conv0"):
            for j in range(4):
                for kind in ("conv", "bn"):
                    name = f"conv{stage + 1}_block{i + 1}_{j}_{kind}/"
                    names["blocks", index, f"{kind}{j}"] = name
        return names | {("dense",): "predictions/"}
    if model_name == "xception":
        return _keras_xception(paths, tensors)
    raise UserError(f"keras.applications has no {model_name}: load it from a safetensors file")


def torchvision(model_name: str, paths: Collection[Path], tensors: Collection[str]) -> Names:
    """Returns the names in torchvision, or in timm if the names of the tensors are timm's.

    Args:
      model_name: The network's name in cifar_jax.models.
      paths: The paths of its arrays.
      tensors: The names of the tensors in the file.

    Raises:
      UserError: If torchvision lacks the network, or has a different variant of it.
    """
    if model_name in _VGG_BLOCKS:
        convs, position = [], 0
        for count in _VGG_BLOCKS[model_name]:
            convs += [f"features.{position + 2 * i}." for i in range(count)]
            position += 2 * count + 1  # each convolution with its relu, and a max-pool
        is_timm = any(name.startswith(("pre_logits.", "head.")) for name in tensors)
        return _vgg(paths, convs, _DENSE["timm" if is_timm else "torchvision"])
    if model_name in ("resnet18", "resnet34", "resnet50"):
        _check_conventions(model_name, paths, "torch")
        suffix = "0" if model_name == "resnet50" else "_shortcut"
        names: Names = {("conv_stem",): "conv1.", ("bn_stem",): "bn1."}
        for index, stage, i in _stages(paths, f"conv{suffix}"):
            block = f"layer{stage}.{i}"
            for kind, position in (("conv", 0), ("bn", 1)):
                names["blocks", index, f"{kind}{suffix}"] = f"{block}.downsample.{position}."
                for j in (1, 2, 3):
                    names["blocks", index, f"{kind}{j}"] = f"{block}.{kind}{j}."
        return names | {("dense",): "fc."}
    if model_name == "xception":
        return _timm_xception(paths)
    raise UserError(f"torchvision has no {model_name}, and timm's names for it are not known")


def _vgg(paths: Collection[Path], convs: Sequence[str], dense: Sequence[str]) -> Names:
    """Names the convolutions in order, and the dense layers if there are as many as in `dense`."""
    ours = sorted(path[1] for path in paths if path[0] == "layers" and path[2] == "kernel")
    layers = [*(("layers", i) for i in ours), ("dense",)]
    names = [*convs, *dense] if len(layers) == len(convs) + len(dense) else convs
    return dict(zip(layers, names, strict=False))


def _keras_xception(paths: Collection[Path], tensors: Collection[str]) -> Names:
    names: Names = {("dense",): "predictions/"}
    for i in (1, 2):
        names[(f"conv{i}",)] = f"block1_conv{i}/"
        names[(f"bn{i}",)] = f"block1_conv{i}_bn/"
    unnamed_convs = (match[1] for name in tensors if (match := _UNNAMED_CONV.fullmatch(name)))
    unnamed_norms = (match[1] for name in tensors if (match := _UNNAMED_NORM.fullmatch(name)))
    for index in _indices(paths):
        block = ("blocks", index)
        for j in range(3):
            layer = f"block{index + 2}_sepconv{j + 1}"
            for kind in ("depthwise", "pointwise"):
                names[*block, "convs", j, kind] = f"{layer}/{kind}_"
            names[*block, "norms", j] = f"{layer}_bn/"
        if (*block, "conv_shortcut", "kernel") in paths:
            names[*block, "conv_shortcut"] = next(unnamed_convs, "conv2d/")
            names[*block, "bn_shortcut"] = next(unnamed_norms, "batch_normalization/")
    return names


def _timm_xception(paths: Collection[Path]) -> Names:
    """Returns the names of legacy_xception."""
    names: Names = {("dense",): "fc."}
    for i in (1, 2):
        names[(f"conv{i}",)], names[(f"bn{i}",)] = f"conv{i}.", f"bn{i}."
    *blocks, last = _indices(paths)
    for index in blocks:
        block, timm = ("blocks", index), f"block{index + 1}"
        for j in range(3):
            # `rep` holds relu, convolution and BN in turn; the first block has no first relu.
            position = 3 * j + (index > 0)
            names |= _timm_separable(block, j, f"{timm}.rep.{position}.")
            names[*block, "norms", j] = f"{timm}.rep.{position + 1}."
        names[*block, "conv_shortcut"] = f"{timm}.skip."
        names[*block, "bn_shortcut"] = f"{timm}.skipbn."
    for j in (0, 1):
        names |= _timm_separable(("blocks", last), j, f"conv{j + 3}.")
        names["blocks", last, "norms", j] = f"bn{j + 3}."
    return names


def _timm_separable(block: Path, j: int, prefix: str) -> Names:
    depthwise, pointwise = (*block, "convs", j, "depthwise"), (*block, "convs", j, "pointwise")
    return {depthwise: f"{prefix}conv1.", pointwise: f"{prefix}pointwise."}


def _indices(paths: Collection[Path]) -> list[int]:
    return sorted({path[1] for path in paths if path[0] == "blocks"})


def _stages(paths: Collection[Path], projection: str) -> Iterator[tuple[int, int, int]]:
    """Yields (index of a residual block, its stage from 1, its index in the stage)."""
    stage, i = 1, 0
    for index in _indices(paths):
        if index and ("blocks", index, projection, "kernel") in paths:
            stage, i = stage + 1, 0
        yield index, stage, i
        i += 1


def _check_conventions(model_name: str, paths: Collection[Path], form: str) -> None:
    """Raises UserError unless the convolutions have biases, as in Keras, or none, as in PyTorch."""
    ours = "keras" if ("conv_stem", "bias") in paths else "torch"
    if ours != form:
        raise UserError(
            f"these weights are for the {form} form of {model_name}, and the config describes the "
            f"{ours} form: set --config.model.conventions={form}"
        )
