"""The speedruns in PyTorch: an independent computation to compare the JAX engine with.

It follows the published scripts (KellerJordan/cifar10-airbench and the submission NAVIER-STOKED to
AIDDA-Institute/CIFAR-100-speedrun) and reads only hyper-parameters from the config: initialization,
whitening, augmentation, schedules, optimizers, lookahead and evaluation are in plain PyTorch, here
and in torch_*.py. Random numbers come from PyTorch, so accuracies agree with those of JAX only
statistically.

On CPUs it computes in float32. On NVIDIA GPUs it is compiled with autotuning, and with the dtype
bfloat16 it uses autocast, and bfloat16 for Muon's iterations and for the normalized images.

Differences from the JAX engine: a random half of the images starts mirrored in each run, erased
squares have the exact mean color, and BatchNorm keeps the unbiased running variance. Under
autocast, the head computes in bfloat16.
"""

import bisect
import math
import re
import time
from fnmatch import fnmatchcase

import numpy as np
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

from benchmarks import torch_models
from benchmarks.speedrun.outcome import Outcome
from benchmarks.speedrun.torch_images import crop, erase, mirror_half, views
from benchmarks.speedrun.torch_initialization import initialize, whitening_filters
from benchmarks.speedrun.torch_optimizers import Muon, learning_rates, newton_schulz, parse_groups
from cifar_jax import data
from cifar_jax.config import flatten
from cifar_jax.errors import UserError, unknown

# {network: whether its whitening uses the covariance instead of the second moment}.
NETWORKS = {"airbench": False, "speed_resnet": True}
# The number of images whose patches are whitened.
NUM_WHITENING_IMAGES = 5000
# Fields that change the training and must have these values.
_FIXED = {
    **{"drop_last": True, "ema.decay": 0.0, "augment.mix": "", "augment.resize": 0},
    **{"augment.normalize": "standard", "augment.resize_method": "bilinear"},
    **{"optim.power": 1.0, "optim.clip_norm": 0.0, "optim.sam_rho": 0.0},
    **{"optim.weight_decay_mask": "all", "plateau.patience": 0, "early_stopping.patience": 0},
    **{"transfer.weights": "", "transfer.train": "all", "transfer.freeze_batch_norm": False},
}
# The operations of the speedruns.
_OPS = re.compile(
    r"(?P<flip>alternating_flip)?\|?(crop\((?P<padding>\d+), mode='reflect'\))?\|?"
    r"(random_erasing\(1\.0, \((?P<area>[\d.]+), (?P=area)\), \(1\.0, 1\.0\).*\))?"
)


class InTorch:
    """A speedrun that can be repeated with other seeds.

    Args:
      config: A config that `experiment.checked` has returned.
      dataset: The images; see `experiment.load_data`.
      clock: One of records.CLOCKS; see `run`.

    Raises:
      UserError: If the config has settings that no speedrun uses.
    """

    def __init__(self, config: ConfigDict, dataset: data.Dataset, clock: str):
        if config.model.name not in NETWORKS:
            raise unknown("speedrun's network", config.model.name, NETWORKS)
        values = flatten(config)
        for field, value in _FIXED.items():
            if values[field] != value:
                raise UserError(f"in PyTorch, {field} must be {value!r}, got {values[field]!r}")
        self._config, self._clock, self._dataset = config, clock, dataset
        ops = _OPS.fullmatch(config.augment.ops)
        if ops is None:
            raise UserError(
                "in PyTorch, augment.ops must be alternating_flip|crop(PIXELS, mode='reflect') or "
                f"these and random_erasing of a square, got {config.augment.ops!r}"
            )
        self._flips, self._padding = bool(ops["flip"]), int(ops["padding"] or 0)
        self._square = round(32 * math.sqrt(float(ops["area"] or 0)))
        self.steps_per_epoch = len(dataset.train.labels) // config.batch_size
        self._num_steps = config.num_epochs * self.steps_per_epoch

        self._on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if self._on_gpu else "cpu")
        self._dtype = torch.float32
        if self._on_gpu and config.dtype != "float32":
            self._dtype = torch.bfloat16
        options = config.model.to_dict()
        network = torch_models.create(options.pop("name"), dataset.info.num_classes, **options)
        self.network = network.to(self._device, memory_format=torch.channels_last)
        self._forward, self._orthogonalize = self.network, newton_schulz
        if self._on_gpu:
            self._forward = torch.compile(self.network, mode="max-autotune", dynamic=False)
            self._orthogonalize = torch.compile(newton_schulz, dynamic=False)
        self.start()  # reports an invalid optimizer or schedule

    def run(self, seed: int, labels: np.ndarray | None = None) -> Outcome:
        """Trains and evaluates once.

        Clock T1 runs over whitening, normalization, augmentation, training and evaluation. Clock T2
        runs over initialization, the upload of the training images, whitening and training.

        Args:
          seed: The seed of PyTorch's random numbers.
          labels: [N] integers that replace the training labels, as in a run only to warm up.
        """
        train, test = self._dataset.train, self._dataset.test
        torch.manual_seed(seed)
        test_images, test_labels = self._upload(test.images), self._upload(test.labels)
        began = self._now()
        initialize(self.network, self._config.model.get("init", "sgd"))
        self.start()
        images = self._upload(train.images)
        labels = self._upload(train.labels if labels is None else labels)
        if self._clock == "T1":
            began = self._now()
        self.whiten(images)
        loss = self._train(images, labels)
        ended = self._now()
        accuracies = self._evaluate(test_images, test_labels)
        if self._clock == "T1":
            ended = self._now()
        return Outcome(ended - began, *(x.item() for x in (*accuracies, loss)))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images [N, H, W, 3] uint8 to [N, 3, H, W] float32 with mean 0 and std 1."""
        images = images.permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(x, device=self._device).reshape(3, 1, 1)
            for x in (self._dataset.info.mean, self._dataset.info.std)
        )
        return (images - mean) / std

    def augment(self, images: torch.Tensor, epoch: int) -> torch.Tensor:
        """Returns all images [N, 3, 32, 32] as they are seen in an epoch, counted from 0.

        Images are mirrored in every other epoch; half of those passed already are.
        """
        if self._padding:
            images = crop(images, self._padding)
        if self._flips and epoch % 2:
            images = images.flip(3)
        return erase(images, self._square) if self._square else images

    def whiten(self, images: torch.Tensor) -> None:
        """Computes the stem's filters from training images [N, 32, 32, 3] uint8."""
        first = self.normalize(images[:NUM_WHITENING_IMAGES])
        filters = whitening_filters(first, NETWORKS[self._config.model.name])
        self.network.conv_stem.weight.data.copy_(filters)

    def start(self) -> None:
        """Creates the optimizers and the average for a run from the network's current parameters.

        Raises:
          UserError: If a group's optimizer is neither SGD nor Muon, or its schedule is unknown.
        """
        groups = parse_groups(self._config.optim.groups, self._config.optim.to_dict())
        members = [[] for _ in groups]
        for name, param in self.network.named_parameters():
            if name == "conv_stem.weight":
                continue
            param.requires_grad_(True)
            path = name.replace(".", "/").removesuffix("weight")
            if name.endswith("weight"):
                path += "kernel" if param.ndim > 1 else "scale"
            matches = [fnmatchcase(path, pattern) for pattern, _ in groups]
            members[matches.index(True)].append(param)

        self.optimizers, self._schedules = [], []
        for (_, fields), params in zip(groups, members, strict=True):
            if not params:
                continue
            rates, end = learning_rates(fields, self.steps_per_epoch, self._config.num_epochs)
            optimizer = self._create_optimizer(fields, params, float(rates[0]))
            self.optimizers.append(optimizer)
            self._schedules.append((optimizer.param_groups[0], rates, end))
        self._slow = [x.detach().clone() for x in self._averaged()]

    def _create_optimizer(self, fields, params, lr) -> torch.optim.Optimizer:
        options = dict(lr=lr, momentum=fields["momentum"], nesterov=fields["nesterov"])
        if fields["name"] == "sgd":
            return torch.optim.SGD(
                params, weight_decay=fields["weight_decay"], fused=self._on_gpu, **options
            )
        if fields["name"] != "muon" or fields["weight_decay"]:
            raise UserError(
                "in PyTorch, optimizers must be 'sgd', or 'muon' without weight decay, got "
                f"{fields['name']!r} with weight_decay={fields['weight_decay']}"
            )
        return Muon(
            params, rescales=self._config.optim.rescale_kernels, dtype=self._dtype,
            orthogonalize=self._orthogonalize, **options,
        )  # fmt: skip

    def train_step(self, step: int, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Takes a step and returns its loss, [].

        Args:
          step: The step, counted from 0.
          images: [B, 3, 32, 32], normalized and augmented.
          labels: [B] int64.
        """
        for group, rates, end in self._schedules:
            group["lr"] = float(rates[step])
            if step == end:  # saves the gradients of a group that has finished
                for param in group["params"]:
                    param.requires_grad_(False)
        config = self._config
        if config.augment.train_sizes:
            epoch = step // self.steps_per_epoch
            index = bisect.bisect_right(config.augment.train_size_epochs, epoch)
            size = config.augment.train_sizes[index]
            if size != images.shape[2]:
                images = F.interpolate(
                    images.float(), (size, size), mode="bilinear", antialias=True
                )
        self.network.train()
        loss = F.cross_entropy(
            self._classify(images), labels, label_smoothing=config.label_smoothing
        )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        every = config.lookahead.every
        if every and (step + 1) % every == 0:
            progress = (step + 1) / self._num_steps
            decay = config.lookahead.decay**every * progress**config.lookahead.power
            for slow, fast in zip(self._slow, self._averaged(), strict=True):
                slow.lerp_(fast, 1 - decay)
                fast.copy_(slow)
        return loss.detach()

    def _averaged(self) -> list[torch.Tensor]:
        """Returns what lookahead averages: all parameters and statistics, but not the filters."""
        if not self._config.lookahead.every:
            return []
        state = self.network.state_dict()
        del state["conv_stem.weight"]
        return [x for x in state.values() if x.is_floating_point()]

    def _classify(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits [B, num_classes] float32 of normalized images [B, 3, S, S]."""
        images = images.to(self._dtype, memory_format=torch.channels_last)
        is_reduced = self._dtype == torch.bfloat16
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_reduced):
            return self._forward(images).float()

    def _train(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Trains for all epochs and returns the mean loss of the last one, []."""
        images = self.normalize(images).to(self._dtype)
        if self._flips:
            images = mirror_half(images)
        batch_size = self._config.batch_size
        for epoch in range(self._config.num_epochs):
            seen = self.augment(images, epoch)
            order = torch.randperm(len(labels), device=self._device)
            losses = []
            for i in range(self.steps_per_epoch):
                indices = order[i * batch_size : (i + 1) * batch_size]
                step = epoch * self.steps_per_epoch + i
                losses.append(self.train_step(step, seen[indices], labels[indices]))
        if self._slow:  # the last steps since the average has moved do not count
            for slow, fast in zip(self._slow, self._averaged(), strict=True):
                fast.copy_(slow)
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _evaluate(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the accuracies with the config's views and with a single view, [] each."""
        self.network.eval()
        correct = []
        for batch, truth in zip(
            images.split(self._config.eval_batch_size),
            labels.split(self._config.eval_batch_size),
            strict=True,
        ):
            weighted = views(self.normalize(batch), self._config.augment.views)
            logits = [weight * self._classify(view) for weight, view in weighted]
            correct += [(x.argmax(1) == truth) for x in (sum(logits), logits[0])]
        return tuple(torch.cat(part).float().mean() for part in (correct[::2], correct[1::2]))

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        """Copies images as uint8 or labels as int64 to the device."""
        tensor = torch.from_numpy(array if array.ndim > 1 else array.astype(np.int64))
        return tensor.to(self._device)

    def _now(self) -> float:
        """Returns the time in seconds after all work on the device has finished."""
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
