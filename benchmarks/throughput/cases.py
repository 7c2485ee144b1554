"""Parses cases such as "resnet18:512:bfloat16": a network, its config, batch size and dtype."""

from ml_collections import ConfigDict

from benchmarks.harness import CASE, ROOT, parse_batch_size
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config
from cifar_jax import experiment, models
from cifar_jax.config import base
from cifar_jax.errors import UserError, quote, unknown

# The configs of cases for which the rule of `config_of` gives several configs, none, or not the
# intended one.
_CONFIGS = {
    "airbench": "speedrun/airbench94",
    "cnn13": "hybrid/cnn13_l2",
    "cnn2": "coarse/cnn2_batch64",
    "cnn9": "hybrid/cnn_shallow",
    "resnet18": "hybrid/resnet18",
    "resnet18 imagenet": "cifar10/resnet18",
    "resnet18 reference": "resnet18",
    "speed_resnet": "speedrun/cifar100_75",
    "vgg16": "coarse/vgg16_transfer",
}
# The networks timed by default on a CPU, which take a minute or two.
SMALL = ("cnn2", "cnn3", "cnn4", "cnn_deep", "cnn_small", "simple_initial", "stacked3")


def names() -> list[str]:
    """Returns the names of all cases without a batch size: every network, some in variants."""
    return sorted(models.MODELS.keys() | _CONFIGS.keys())


def config_of(name: str) -> str:
    """Returns the config whose batch size, optimizer and augmentation a case is timed with.

    It is the published experiment with the network's name, such as assignment/cnn3 for cnn3, or
    else the file of that name in configs/ or configs/recipes/.

    Raises:
      UserError: If the case is unknown, or no config or more than one has its name.
    """
    if name in _CONFIGS:
        return _CONFIGS[name]
    if name not in models.MODELS:
        raise unknown("model", name, names())
    experiments = [e for e in sorted(PUBLISHED) if e.rpartition("/")[2] == name]
    if len(experiments) > 1:
        raise UserError(f"{name} has several configs: {', '.join(experiments)}")
    recipes = [c for c in (name, f"recipes/{name}") if (ROOT / "configs" / f"{c}.py").is_file()]
    if not experiments and not recipes:
        raise UserError(f"{name} has no config: configs/{name}.py is missing")
    return (experiments or recipes)[0]


def parse_case(text: str) -> tuple[str, ConfigDict]:
    """Parses a case into the name of its network and the config that it is timed with.

    Args:
      text: A case such as "resnet18", "resnet18:512" or "resnet18:512:bfloat16".

    Raises:
      UserError: If the network or the dtype is unknown, or the batch size is not a whole number
        from 1 to MAX_BATCH_SIZE.
    """
    name, *rest = text.split(":")
    settings = load_config(config_of(name))
    settings.transfer = base.get_config().transfer  # a case trains the whole network from scratch
    settings.augment.train_sizes = settings.augment.train_size_epochs = ()  # one program
    if len(rest) > 2:
        raise UserError(f"{quote(text)} is not {CASE}")
    if rest:
        settings.batch_size = parse_batch_size(text, rest[0])
    if len(rest) == 2:
        if rest[1] not in experiment.DTYPES:
            raise unknown("dtype", rest[1], experiment.DTYPES)
        settings.dtype = rest[1]
    return name, settings
