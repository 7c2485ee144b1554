"""The initialization of the speedruns' networks, in PyTorch."""

import torch
from torch import nn

# Added to the eigenvalues of the patches.
WHITENING_EPS = 5e-4


def whitening_filters(images: torch.Tensor, centered: bool) -> torch.Tensor:
    """Returns the 24 filters [24, 3, 2, 2] that whiten patches of images [N, 3, H, W] float32.

    As in this suite, the filters of the largest eigenvalues are first, and the first entry of each
    is not negative. Order and signs matter only if the first convolution has fewer than 24 filters:
    it initially copies its first inputs and ignores the rest. airbench94_muon has the filters of
    the smallest eigenvalues first.
    """
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # [N, 3, H - 1, W - 1, 2, 2]
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    if centered:
        patches = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values.clamp(min=0) + WHITENING_EPS).sqrt()).T  # ascending eigenvalues
    filters = filters.flip(0)
    filters = torch.where(filters[:, :1] < 0, -filters, filters).reshape(12, 3, 2, 2)
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
            nn.init.dirac_(layer.weight[: layer.in_channels])
    if init == "muon":
        network.dense.weight.div_(network.dense.weight.std())
    else:
        network.conv_stem.bias.zero_()
