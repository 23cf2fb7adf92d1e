"""Exact mean and standard deviation of pixels, by patch and channel."""

import numpy as np
from numpy.typing import NDArray

from pcam_model.data.image import PATCH_SIZE

Sums = NDArray[np.float64]
BATCH = 16  # patches at a time, which stay in the CPU's caches


def channel_sums(pixels: NDArray[np.uint8]) -> Sums:
    """Sums of the pixels, and of their squares, by patch and channel: (B, 96, 96, 3) -> (B, 2, 3).

    Exact: the partial sums in float32 are whole numbers below 2**24.
    """
    total = np.empty((len(pixels), 2, 3))
    for start in range(0, len(pixels), BATCH):
        values = pixels[start : start + BATCH].reshape(-1, PATCH_SIZE, PATCH_SIZE * 3).astype(np.float32)
        total[start : start + BATCH, 0] = _sum_columns(values)
        values *= values
        total[start : start + BATCH, 1] = _sum_columns(values)
    return total


def _sum_columns(values: NDArray[np.float32]) -> Sums:
    """Sums over rows and columns: (B, 96, 96 * 3) -> (B, 3)."""
    sums: Sums = values.sum(axis=1).reshape(-1, PATCH_SIZE, 3).sum(axis=1, dtype=np.float64)
    return sums


def mean_and_std(sums: Sums) -> tuple[Sums, Sums]:
    """Mean and std of each channel, 0..1, from sums (..., 2, 3) of a patch, or their mean over patches."""
    mean, square = sums[..., 0, :] / PATCH_SIZE**2, sums[..., 1, :] / PATCH_SIZE**2
    return mean / 255, np.sqrt(np.maximum(square - mean**2, 0)) / 255
