"""Puts the tensors of a file into the tree of a network's arrays, and checks names and shapes."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cifar_jax.errors import UserError, quote
from cifar_jax.transfer.layouts import Source, is_counter, of_head, sources
from cifar_jax.transfer.names import Path
from cifar_jax.transfer.weight_file import Weights

_STATISTICS = ("mean", "var")
# The normalizations of keras.applications, and of torchvision and timm. Those of Xception differ.
_NORMALIZE = {"keras": "caffe", "torch": "imagenet"}


class Pretrained(NamedTuple):
    """Weights for a network.

    Attributes:
      params: Nested dict of float32 NumPy arrays, with the keys of the network's parameters. The
        arrays of the head are there only if the source has them with the same shapes.
      batch_stats: The running statistics of BatchNorm, likewise.
      source: Where they are from.
      notes: What the user should know, in sentences without a full stop.
      normalize: The config.augment.normalize that they were trained with; empty if unknown.
    """

    params: dict
    batch_stats: dict
    source: str
    notes: tuple[str, ...]
    normalize: str


def fit(
    weights: Weights, model_name: str, template: Any, is_head: Callable[[Path], bool]
) -> Pretrained:
    """Returns the tensors as arrays of a network.

    Args:
      weights: Named tensors.
      model_name: See `load`.
      template: See `load`.
      is_head: See `load`.

    Raises:
      UserError: If an array of the body is missing or its shape differs, or a tensor is left over.
    """
    _check_model(weights, model_name)
    trees = {**flatten_dict(template.params), **flatten_dict(template.batch_stats)}
    # Kernels first: in an error, their names and shapes are the most informative.
    paths = sorted(trees, key=lambda path: path[-1] != "kernel")
    shapes = {path: tuple(trees[path].shape) for path in paths}
    found = sources(weights, model_name, shapes)
    surplus = _check_known(weights, model_name, found, is_head)
    body, head = {}, {}
    for path, shape in shapes.items():
        if not is_head(path):
            body[path] = _array(weights, model_name, path, shape, found.get(path))
    notes = ()
    try:
        if surplus:
            raise UserError(
                f"{weights.source} holds {_list(surplus)}, which {model_name} does not have"
            )
        for path, shape in shapes.items():
            if is_head(path):
                head[path] = _array(weights, model_name, path, shape, found.get(path))
    except UserError as error:
        head, notes = {}, (f"the head is initialized at random, because {error}",)
    arrays = body | head
    of_stats = {path: array for path, array in arrays.items() if path[-1] in _STATISTICS}
    params = {path: array for path, array in arrays.items() if path not in of_stats}
    return Pretrained(
        unflatten_dict(params),
        unflatten_dict(of_stats),
        weights.source,
        notes,
        _normalize(weights, model_name),
    )


def _normalize(weights: Weights, model_name: str) -> str:
    if weights.layout not in _NORMALIZE:
        return weights.metadata.get("normalize", "")
    return "symmetric" if model_name == "xception" else _NORMALIZE[weights.layout]


def _check_model(weights: Weights, model_name: str) -> None:
    """Raises UserError if a file of this suite says that it holds another network."""
    if "model" not in weights.metadata:
        return
    try:
        name = json.loads(weights.metadata["model"])["name"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{weights.source} does not say which network it holds: the model in its metadata is "
            f"{quote(weights.metadata['model'])}"
        ) from error
    if name != model_name:
        raise UserError(f"{weights.source} holds the network {name!r}, not {model_name!r}")


def _check_known(
    weights: Weights,
    model_name: str,
    found: dict[Path, Source],
    is_head: Callable[[Path], bool],
) -> list[str]:
    """Raises UserError unless the file holds the body, and nothing else but a head.

    Returns:
      The names of the tensors of its head that the network's head lacks.
    """
    expected = [source.name for path, source in found.items() if not is_head(path)]
    if not weights.tensors.keys() & set(expected):
        shown = ", ".join(list(weights.tensors)[:3]) or "nothing"
        raise UserError(
            f"{weights.source} does not hold {model_name}: it holds {shown}, but not "
            f"{', '.join(expected[:2])}"
        )
    missing = [name for name in expected if name not in weights.tensors]
    known = {source.name for source in found.values()}
    unknown = [
        name for name in weights.tensors if name not in known and not is_counter(weights, name)
    ]
    surplus = of_head(weights, unknown)
    extra = [name for name in unknown if name not in surplus]
    if missing or extra:
        lacks = f"it lacks {_list(missing)}" if missing else ""
        holds = f"it holds {_list(extra)}, which {model_name} does not have" if extra else ""
        raise UserError(
            f"{weights.source} does not hold {model_name} as configured: "
            f"{'; '.join(filter(None, (lacks, holds)))}"
        )
    return surplus


def _list(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _array(
    weights: Weights, model_name: str, path: Path, shape: tuple[int, ...], source: Source | None
) -> np.ndarray:
    """Returns one array, float32; raises UserError if its tensor is missing or does not fit."""
    ours = ".".join(map(str, path))
    if source is None:
        raise UserError(f"{ours} has no counterpart in the {weights.layout} form of {model_name}")
    if source.name not in weights.tensors:
        raise UserError(f"{weights.source} lacks {source.name}")
    tensor = weights.tensors[source.name]
    where = f"{source.name} in {weights.source}"
    if tensor.dtype.kind in "iub":
        raise UserError(f"{where} holds integers ({tensor.dtype}), not weights")
    with np.errstate(over="ignore"):  # an infinite value is refused below
        tensor = tensor.astype(np.float32, copy=False)
    try:
        array = source.convert(tensor)
    except ValueError:  # a different number of axes
        array = tensor
    if array.shape != shape:
        converted = f", in our order of axes {array.shape}," if array.shape != tensor.shape else ""
        raise UserError(
            f"{where} has the shape {tensor.shape}{converted} but {ours} has {shape}"
            + _stem_hint(path)
        )
    array = np.ascontiguousarray(array)
    if not np.isfinite(array).all():
        raise UserError(f"{where} holds NaN or infinite values")
    return array


def _stem_hint(path: Path) -> str:
    hint = (
        "; with --config.model.stem=imagenet, resnet18, resnet34 and resnet50 have ImageNet's 7x7 "
        "stem"
    )
    return hint if path[0] == "conv_stem" else ""
