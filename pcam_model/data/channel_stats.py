"""Mean and spread of pixels, exactly and in passing."""

import numpy as np
from numpy.typing import NDArray

from pcam_model.data.image import SIZE

Sums = NDArray[np.float64]


def channel_sums(pixels: NDArray[np.uint8]) -> Sums:
    """Sum of the pixels, and of their squares, of each patch and channel: (B, 96, 96, 3) -> (B, 2, 3).

    Exact: the partial sums in float32 are whole numbers below 2**24.
    """
    total = np.empty((len(pixels), 2, 3))
    for start in range(0, len(pixels), 16):
        values = pixels[start : start + 16].reshape(-1, SIZE, SIZE * 3).astype(np.float32)
        total[start : start + 16, 0] = over_columns(values)
        values *= values
        total[start : start + 16, 1] = over_columns(values)
    return total


def over_columns(values: NDArray[np.float32]) -> Sums:
    """(B, 96, 96 * 3) -> (B, 3)."""
    found: Sums = values.sum(axis=1).reshape(-1, SIZE, 3).sum(axis=1, dtype=np.float64)
    return found


def mean_and_std(sums: Sums) -> tuple[Sums, Sums]:
    """Mean and standard deviation a channel, 0..1, from (the mean over) patches' sums (..., 2, 3)."""
    mean, square = sums[..., 0, :] / SIZE**2, sums[..., 1, :] / SIZE**2
    return mean / 255, np.sqrt(np.maximum(square - mean**2, 0)) / 255
