"""Muon and the groups and schedules of the speedruns' optimizers, in PyTorch."""

import ast
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cifar_jax.errors import unknown


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
