"""The speedruns in PyTorch: an independent computation to compare the JAX engine with.

It follows the published scripts (KellerJordan/cifar10-airbench and the submission NAVIER-STOKED to
AIDDA-Institute/CIFAR-100-speedrun) and reads only hyper-parameters from the config: initialization,
whitening, augmentation, schedules, optimizers, lookahead and evaluation are written here in plain
PyTorch. Random numbers come from PyTorch, so accuracies agree with those of JAX only statistically.

On CPUs it computes in float32. On NVIDIA GPUs it is compiled with autotuning, and with the dtype
bfloat16 it uses autocast, and bfloat16 for Muon's iterations and for the normalized images.

Differences from the JAX engine: a random half of the images starts mirrored in each run, erased
squares have the exact mean color, and BatchNorm keeps the unbiased running variance. Under
autocast, the head computes in bfloat16.
"""

import ast
import bisect
import math
import re
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional as F

from benchmarks import torch_models
from benchmarks.speedrun.outcome import Outcome
from benchmarks.speedrun.records import CLOCKS
from cifar_jax import data
from cifar_jax.config import flatten
from cifar_jax.errors import UserError, unknown

# {network: whether its whitening uses the covariance instead of the second moment}.
NETWORKS = {"airbench": False, "speed_resnet": True}
# Added to the eigenvalues of the patches, and the number of images that these are from.
WHITENING_EPS, NUM_WHITENING_IMAGES = 5e-4, 5000
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


def parse_groups(text: str, defaults: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Parses `config.optim.groups`, whose text has been checked.

    Args:
      text: Lines, or parts separated by ";", of the form "PATTERN: FIELD=VALUE, FIELD=VALUE".
      defaults: The fields of `config.optim`.

    Returns:
      The pattern and all fields of each group. The last pattern matches every parameter.
    """
    groups = []
    for line in filter(None, map(str.strip, re.split("[;\n]", text))):
        pattern, _, assignments = line.partition(":")
        call = ast.parse(f"dict({assignments})", mode="eval").body
        fields = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        # The first and the last learning rate are proportional to the peak.
        ratio = fields.get("learning_rate", defaults["learning_rate"]) / defaults["learning_rate"]
        ends = ("base_learning_rate", "final_learning_rate")
        ends = {field: ratio * defaults[field] for field in ends}
        groups.append((pattern.strip(), {**defaults, **ends, **fields}))
    return [*groups, ("*", dict(defaults))]


def learning_rates(
    fields: Mapping[str, Any], steps_per_epoch: int, num_epochs: int
) -> tuple[np.ndarray, int]:
    """Returns the learning rate of a group at every step [num_steps], and the step where it ends.

    Args:
      fields: The fields of the group, as from `parse_groups`.
      steps_per_epoch: The number of steps per epoch.
      num_epochs: The duration of the run.

    Raises:
      UserError: If the schedule is not one of the speedruns'.
    """
    peak, base, final = (fields[f"{x}learning_rate"] for x in ("", "base_", "final_"))
    end = round(fields.get("num_epochs", num_epochs) * steps_per_epoch)
    warmup = round(fields["warmup_epochs"] * steps_per_epoch)
    steps = np.arange(num_epochs * steps_per_epoch)
    t, length = np.maximum(steps - warmup, 0), end - warmup
    match fields["schedule"]:
        case "polynomial":
            rates = np.interp(t, [0, length], [peak, final])
        case "linear_one_cycle":
            rates = np.interp(t, [0, fields["rise"] * length, length], [base, peak, final])
        case "triangular":
            cycles = t / (2 * fields["half_cycle_epochs"] * steps_per_epoch)
            rates = base + (peak - base) * (1 - np.abs(2 * (cycles % 1) - 1))
        case other:
            raise unknown("schedule", other, ("polynomial", "linear_one_cycle", "triangular"))
    if warmup:
        rates = rates * np.minimum(steps / warmup, 1)
    return np.where(steps < end, rates, 0.0), end


def newton_schulz(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """Orthogonalizes matrices approximately, as airbench94_muon does, in their own dtype."""
    results = []
    for matrix in matrices:
        is_tall = matrix.size(0) > matrix.size(1)
        x = matrix.T if is_tall else matrix
        x = x / (x.norm() + 1e-7)
        for _ in range(3):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        results.append(x.T if is_tall else x)
    return results


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalized, as in airbench94_muon.

    Args:
      params: Kernels of convolutions [O, I, h, w], or a group of them.
      lr: The learning rate, which each step reads.
      momentum: The factor of the velocity.
      nesterov: Whether to use Nesterov momentum.
      rescales: Whether each step first gives a kernel the norm sqrt(O).
      dtype: The dtype in which to orthogonalize.
      orthogonalize: `newton_schulz`, or the same function compiled.
    """

    def __init__(
        self, params, lr: float, *, momentum: float, nesterov: bool, rescales: bool, dtype,
        orthogonalize=newton_schulz,
    ):  # fmt: skip
        super().__init__(params, dict(lr=lr, momentum=momentum, nesterov=nesterov))
        self._rescales, self._dtype, self._orthogonalize = rescales, dtype, orthogonalize

    @torch.no_grad()
    def step(self):
        """Updates all kernels from their gradients."""
        for group in self.param_groups:
            kernels, matrices = group["params"], []
            for kernel in kernels:
                velocity = self.state[kernel].setdefault("velocity", torch.zeros_like(kernel))
                velocity.mul_(group["momentum"]).add_(kernel.grad)
                update = velocity
                if group["nesterov"]:
                    update = kernel.grad.add(velocity, alpha=group["momentum"])
                matrices.append(update.to(self._dtype).reshape(len(kernel), -1))
            for kernel, matrix in zip(kernels, self._orthogonalize(matrices), strict=True):
                if self._rescales:
                    kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                kernel.sub_(matrix.reshape(kernel.shape), alpha=group["lr"])


def whitening_filters(images: torch.Tensor, centered: bool) -> torch.Tensor:
    """Returns the 24 filters [24, 3, 2, 2] that whiten patches of images [N, 3, H, W] float32.

    The filters of the largest eigenvalues are first, as in this suite. airbench94_muon has them
    last, which makes a difference only where the first convolution has fewer than 24 filters: as a
    partial identity, it initially drops the last inputs.
    """
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # [N, 3, H - 1, W - 1, 2, 2]
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    if centered:
        patches = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values.clamp(min=0) + WHITENING_EPS).sqrt()).T  # ascending eigenvalues
    filters = filters.flip(0).reshape(12, 3, 2, 2)
    return torch.cat([filters, -filters])


@torch.no_grad()
def initialize(network: nn.Module, init: str) -> None:
    """Draws new parameters, in place, except the whitening filters; resets the statistics.

    Args:
      network: A network of benchmarks/torch_models.
      init: "muon" for the head and the stem's bias of airbench94_muon, "sgd" for those of others.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.bias.zero_()
            if layer.weight is not None:
                layer.weight.fill_(1)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()  # uniform in +-1 / sqrt(fan-in), the bias too
        if isinstance(layer, nn.Conv2d) and layer is not network.conv_stem:
            dirac_(layer.weight)
    if init == "muon":
        network.dense.weight.div_(network.dense.weight.std())
    else:
        network.conv_stem.bias.zero_()


def dirac_(weight: torch.Tensor) -> None:
    """Lets the first min(O, I) filters of a kernel [O, I, h, w] copy an input channel each."""
    count = min(weight.shape[:2])
    height, width = weight.shape[2:]
    weight[:count] = 0
    weight[:count, :count, height // 2, width // 2] = torch.eye(count, device=weight.device)


def mirror_half(images: torch.Tensor) -> torch.Tensor:
    """Mirrors a random half of the images [N, 3, H, W]."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def crop(images: torch.Tensor, padding: int) -> torch.Tensor:
    """Pads images [N, 3, H, W] by reflection and crops each of them at a random position."""
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    height, width = images.shape[2:]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view with all positions
    device = images.device
    top, left = torch.randint(2 * padding + 1, (2, len(images)), device=device)
    return windows[torch.arange(len(images), device=device), :, top, left]


def erase(images: torch.Tensor, size: int) -> torch.Tensor:
    """Erases a square of `size` pixels at a random position inside each image [N, 3, S, S]."""
    pixels = images.shape[2]
    corners = torch.randint(pixels - size + 1, (2, len(images), 1), device=images.device)
    distance = torch.arange(pixels, device=images.device) - corners
    rows, columns = (distance >= 0) & (distance < size)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def views(images: torch.Tensor, count: int) -> list[tuple[float, torch.Tensor]]:
    """Returns 1, 2 or 6 views of images [N, 3, H, W] with their weights; the first is unchanged."""
    if count == 1:
        return [(1.0, images)]
    shifted = [(0.5, images)]
    if count == 6:
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        others = padded[..., :-2, :-2], padded[..., 2:, 2:]
        shifted = [(0.25, images), *((0.125, x) for x in others)]
    return [(weight, view) for weight, x in shifted for view in (x, x.flip(3))]


class InTorch:
    """A speedrun that can be repeated with other seeds.

    Args:
      config: A config that `experiment.checked` has returned.
      dataset: The images; see `experiment.load_data`.
      clock: "T1" or "T2"; see `run`.

    Raises:
      UserError: If the clock is unknown, or the config has settings that no speedrun uses.
    """

    def __init__(self, config: ConfigDict, dataset: data.Dataset, clock: str):
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
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
        network = torch_models.create(options.pop("name"), dataset.num_classes, **options)
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
            for x in (self._dataset.mean, self._dataset.std)
        )
        return (images - mean) / std

    def augment(self, images: torch.Tensor, epoch: int) -> torch.Tensor:
        """Returns all images [N, 3, 32, 32] as they are seen in an epoch, counted from 0.

        Images are mirrored in every other epoch; half of them are when they are passed.
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
        """Creates the optimizers and the average for a run from the network's present parameters.

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
            return torch.optim.SGD(params, weight_decay=fields["weight_decay"], **options)
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
