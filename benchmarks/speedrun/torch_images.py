"""The augmentation of the speedruns and the views of their evaluation, in PyTorch."""

import torch
from torch.nn import functional as F


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
