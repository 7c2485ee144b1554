"""Defines the options with which PyTorch runs."""

from typing import NamedTuple

import jax
import torch


class Setting(NamedTuple):
    """Options with which PyTorch runs.

    Attributes:
      layout: The memory format of images and weights.
      fused: Whether the optimizer is fused.
      huge_pages: Whether large arrays use pages of 2 MiB; has no effect on a GPU.
      compiled: The mode of torch.compile, or None to run eagerly.
    """

    layout: torch.memory_format
    fused: bool
    huge_pages: bool = False
    compiled: str | None = None


# PyTorch with default settings. It exists only on a CPU: on a GPU, channels_last is common
# practice.
DEFAULT = "torch"
SETTINGS = {
    "cpu": {
        "torch": Setting(torch.contiguous_format, False),
        "torch_channels_last": Setting(torch.channels_last, False),
        "torch_fused": Setting(torch.contiguous_format, True),
        "torch_channels_last_fused": Setting(torch.channels_last, True),
        "torch_channels_last_fused_huge": Setting(torch.channels_last, True, True),
        "torch_compiled": Setting(torch.channels_last, True, True, compiled="default"),
    },
    "gpu": {
        "torch_channels_last_fused": Setting(torch.channels_last, True),
        "torch_compiled": Setting(torch.channels_last, True, compiled="reduce-overhead"),
        "torch_autotuned": Setting(torch.channels_last, True, compiled="max-autotune"),
    },
}


def settings_here() -> dict[str, Setting]:
    """Returns the SETTINGS for the current device."""
    return SETTINGS["cpu" if jax.default_backend() == "cpu" else "gpu"]
