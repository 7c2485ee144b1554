"""The networks, by name.

To add a network, write a file, a line in MODELS and a config, and add its parameter count to
tests/models/test_models.py.

Networks for transfer learning split `__call__` into a body and a head, and take images of any size:

- `features(images, rngs=None)` maps images [B, S, S, 3] to features [B, D].
- `classify(features, rngs=None)` maps features [B, D] to logits [B, num_classes].
- `head_paths()` returns the prefixes of the paths of the head's arrays in the tree that
  nnx.to_pure_dict returns, such as (("dense",),).
- `groups()` returns such prefixes for each group of layers, from the head down to the stem. Every
  array belongs to exactly one group.

Networks with a whitening stem (see whitening.py) also have these methods:

- `frozen_paths()` returns the prefixes of the paths of the parameters that never train.
- `whiten(images)` maps training images [N, S, S, 3] to the parameters to replace before training,
  as a nested dict.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError, check_kind, is_number, quote, unknown
from cifar_jax.models import plain
from cifar_jax.models.airbench import Airbench
from cifar_jax.models.cct import CCT
from cifar_jax.models.cnn2 import CNN2
from cifar_jax.models.cnn3 import CNN3
from cifar_jax.models.cnn4 import CNN4
from cifar_jax.models.cnn_deep import CNNDeep
from cifar_jax.models.cnn_small import CNNSmall
from cifar_jax.models.convnext import ConvNeXt
from cifar_jax.models.densenet import DenseNet
from cifar_jax.models.inception_resnet import InceptionResNet
from cifar_jax.models.mobilenetv2 import MobileNetV2
from cifar_jax.models.plain import Plain
from cifar_jax.models.preact_resnet import PreActResNet
from cifar_jax.models.pyramidnet import PyramidNet
from cifar_jax.models.resnet import ResNet
from cifar_jax.models.resnet50 import ResNet50
from cifar_jax.models.resnext import ResNeXt
from cifar_jax.models.se_resnet import SEResNet
from cifar_jax.models.speed_resnet import SpeedResNet
from cifar_jax.models.vgg_bn import VGGBN
from cifar_jax.models.wide_resnet import WideResNet
from cifar_jax.models.xception import Xception

MODELS: dict[str, Callable[..., nnx.Module]] = {
    "airbench": Airbench,
    "cct_7_3x1": CCT,
    "cnn13": partial(Plain, layers=plain.CNN13),
    "cnn2": CNN2,
    "cnn3": CNN3,
    "cnn4": CNN4,
    "cnn9": partial(Plain, layers=plain.CNN9),
    "cnn_deep": CNNDeep,
    "cnn_small": CNNSmall,
    "convnext_t": ConvNeXt,
    "densenet121": DenseNet,
    "inception_resnet": InceptionResNet,
    "mobilenetv2": MobileNetV2,
    "preact_resnet18": partial(PreActResNet, depths=(2, 2, 2, 2)),
    "pyramidnet": PyramidNet,
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet50": ResNet50,
    "resnext29": partial(ResNeXt, depths=(3, 3, 3)),
    "school": partial(Plain, layers=plain.SCHOOL, padding="VALID", dropout=0.3),
    "senet18": partial(SEResNet, depths=(2, 2, 2, 2)),
    "simple": partial(Plain, layers=plain.SIMPLE, padding="VALID", dropout=0.2),
    "simple_initial": partial(Plain, layers=plain.SIMPLE_INITIAL, padding="VALID", dropout=0.2),
    "speed_resnet": SpeedResNet,
    "stacked3": partial(Plain, layers=plain.STACKED3, padding="VALID", dropout=0.3),
    "vgg16": partial(Plain, layers=plain.VGG16),
    "vgg16_bn": VGGBN,
    "vgg19": partial(Plain, layers=plain.VGG19),
    "wide_resnet_28_10": partial(WideResNet, depth=28, widen_factor=10),
    "xception": Xception,
}
# Height and width of CIFAR's images in pixels.
IMAGE_SIZE = 32
# Arguments of networks that other parts of the config determine.
_DERIVED = ("dtype", "image_size")


def create(
    name: str,
    num_classes: int,
    rngs: nnx.Rngs,
    *,
    dtype=jnp.float32,
    image_size: int = IMAGE_SIZE,
    **options,
) -> nnx.Module:
    """Builds a network, a module that maps images [B, S, S, 3] to logits [B, num_classes].

    Args:
      name: Key of MODELS.
      num_classes: Number of logits.
      rngs: The `params` stream initializes the parameters.
      dtype: Dtype of the computation.
      image_size: Height and width S of the images in pixels.
      **options: Options of the network; see `options_of`.

    Raises:
      UserError: If the network or an option is unknown, a value is not of the same kind as the
        default, or the network does not take images of this size.
    """
    known, derived = options_of(name), {}
    if image_size != IMAGE_SIZE:
        if not is_split(name):
            others = ", ".join(filter(is_split, MODELS))
            raise UserError(
                f"{name} takes only images of {IMAGE_SIZE} pixels, not {image_size}; these "
                f"networks take any size: {others}"
            )
        if "image_size" in _keywords(name):
            derived["image_size"] = image_size
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {name}", option, known)
        _check_kind(option, value, known[option], takes_list=option in _takes_list(name))
    return MODELS[name](num_classes, rngs, dtype=dtype, **options, **derived)


def _check_kind(option: str, value: Any, default: Any, *, takes_list: bool) -> None:
    """Raises UserError unless `value` is of the same kind as the default.

    Args:
      option: The name of the option.
      value: Its value.
      default: Its default.
      takes_list: Whether it may be a list where the default is a float.
    """
    default_values, values = (x if isinstance(x, tuple | list) else (x,) for x in (default, value))
    if isinstance(default, bool | str):
        check_kind(option, value, default)
    elif all(isinstance(x, int) for x in default_values):
        kind = "positive integers" if isinstance(default, tuple) else "a positive integer"
        is_of_kind = isinstance(value, tuple | list) == isinstance(default, tuple)
        is_valid = all(is_number(x) and isinstance(x, int) and 1 <= x < 2**16 for x in values)
        if not (is_of_kind and values and is_valid):
            raise UserError(f"{option} must be {kind}, as in {default}, got {quote(value)}")
    elif all(isinstance(x, int | float) for x in default_values):
        # Where the default is a tuple, a single number is valid too: it applies to every layer.
        is_list, may_be = isinstance(value, tuple | list), takes_list or default_values is default
        if not (values and all(map(is_number, values)) and (may_be or not is_list)):
            kind = "numbers" if may_be else "a number"
            raise UserError(f"{option} must be {kind}, as in {default}, got {quote(value)}")
    elif not isinstance(value, tuple | list):  # the layers of a network
        raise UserError(f"{option} must be a list, as in {default}, got {quote(value)}")


def options_of(name: str) -> dict[str, Any]:
    """Returns the options of a network as {name: default value}, without dtype and image_size.

    Raises:
      UserError: If the network is unknown.
    """
    return {k: v for k, v in _keywords(name).items() if k not in _DERIVED}


def is_split(name: str) -> bool:
    """Returns whether a network has a body and a head, as transfer learning needs.

    Such a network takes images of any size; see the module's docstring.

    Raises:
      UserError: If the network is unknown.
    """
    return hasattr(_network(name)[0], "features")


def _network(name: str) -> tuple[Callable[..., nnx.Module], dict[str, Any]]:
    """Returns the class of a network, and the options that its name implies."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    factory = MODELS[name]
    return (factory.func, factory.keywords) if isinstance(factory, partial) else (factory, {})


def _takes_list(name: str) -> set[str]:
    """Returns the options of a network whose annotations allow a list."""
    parameters = inspect.signature(_network(name)[0].__init__).parameters
    return {k for k, p in parameters.items() if "Sequence" in str(p.annotation)}


def _keywords(name: str) -> dict[str, Any]:
    """Returns the keyword-only arguments of a network as {name: default value}."""
    network, preset = _network(name)
    return {
        p.name: preset.get(p.name, p.default)
        for p in inspect.signature(network.__init__).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
