"""Lists the programs of a run, and parses the cases that name its config."""

from typing import NamedTuple

from ml_collections import ConfigDict

from benchmarks.harness import ROOT
from benchmarks.results import load_config
from benchmarks.throughput.cases import parse_case
from benchmarks.throughput.measure import NUM_IMAGES
from cifar_jax import models
from cifar_jax.config import base
from cifar_jax.engine import count_steps
from cifar_jax.errors import unknown

NUM_TEST_IMAGES = 10_000


class Program(NamedTuple):
    """One of the programs of a run.

    Attributes:
      first_epoch: The epoch from which it trains, counted from 0; None if it evaluates the network.
      image_size: Height and width of the network's input in pixels.
      batch_size: The number of images per step.
      steps_per_epoch: The number of steps per epoch, or of one evaluation of the test set.
      num_steps: The number of steps that a run takes with the program, if it evaluates only once.
    """

    first_epoch: int | None
    image_size: int
    batch_size: int
    steps_per_epoch: int
    num_steps: int

    @property
    def is_evaluation(self) -> bool:
        """Whether it evaluates the network instead of training it."""
        return self.first_epoch is None


def parse(text: str) -> tuple[str, ConfigDict, list[Program]]:
    """Parses a case into the name of its network, its config and the programs to compile.

    A case with a slash, such as "speedrun/airbench94", names a config, all of whose programs are
    compiled. For a case of benchmarks.throughput, only the first training program is compiled.

    Raises:
      UserError: If the case is invalid.
    """
    if "/" not in text:
        name, settings = parse_case(text)
        return name, settings, programs_of(settings)[:1]
    folder = ROOT / "configs"
    configs = {str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*/*.py")}
    if text not in configs:
        raise unknown("config", text, sorted(configs))
    settings = load_config(text)
    settings.transfer = base.get_config().transfer  # as in parse_case
    return settings.model.name, settings, programs_of(settings)


def programs_of(settings: ConfigDict) -> list[Program]:
    """Returns the programs of a run on one device: one per size of the images, and evaluation."""
    batch_size, sizes = settings.batch_size, settings.augment.train_sizes
    steps_per_epoch = count_steps(batch_size, NUM_IMAGES, 1, settings.drop_last)
    image_size = settings.augment.resize or models.IMAGE_SIZE
    epochs = (0, *settings.augment.train_size_epochs)
    ends = (*epochs[1:], settings.num_epochs)
    training = [
        Program(epoch, size, batch_size, steps_per_epoch, (end - epoch) * steps_per_epoch)
        for epoch, end, size in zip(epochs, ends, sizes or (image_size,), strict=True)
    ]
    batch_size = min(settings.eval_batch_size, NUM_TEST_IMAGES)
    num_steps = -(-NUM_TEST_IMAGES // batch_size)
    return [*training, Program(None, image_size, batch_size, num_steps, num_steps)]
