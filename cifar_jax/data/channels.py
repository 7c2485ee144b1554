"""Statistics of image channels."""

import numpy as np


def mean_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and standard deviation of each channel, in [0, 1] scale.

    Args:
      images: [N, H, W, C] uint8.

    Returns:
      The mean and the standard deviation, float32 [C] each. They are computed from exact integer
      counts, so the rounding error does not grow with N.
    """
    # Counting the 256 pixel values avoids a float copy of the data set (600 MB for CIFAR).
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    )
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
