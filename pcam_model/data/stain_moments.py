"""Stain and sharpness of patches, as a few numbers each that need no network."""

import numpy as np
import torch
from numpy.typing import NDArray

from pcam_model.data.stain import stain_amounts

MOMENTS = (
    "haematoxylin mean", "eosin mean", "DAB mean", "haematoxylin std", "eosin std", "DAB std",
    "sharpness", "block edges",
)  # fmt: skip
BATCH = 128
JPEG_BLOCK = 8  # pixels; JPEG quantises each block on its own


@torch.inference_mode()
def stain_moments(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The `MOMENTS` of patches uint8 (N, H, W, 3), float32 (N, 8).

    Mean and standard deviation of the amounts of the stains over the pixels; `sharpness`, the logarithm of the mean
    absolute second difference of grey values; `block edges`, the logarithm of how much larger differences are at the
    edges of JPEG's blocks than elsewhere.
    """
    batches = [_moments(patches[start : start + BATCH]) for start in range(0, len(patches), BATCH)]
    return np.concatenate(batches) if batches else np.empty((0, len(MOMENTS)), np.float32)


def _moments(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(np.require(patches, requirements="W"))
    amounts = stain_amounts(pixels).flatten(1, 2)
    grey = pixels.float().mean(3)
    second = (grey[:, :, 2:] - 2 * grey[:, :, 1:-1] + grey[:, :, :-2]).abs().mean((1, 2))
    steps = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(1)
    at_edge = torch.arange(steps.shape[1]) % JPEG_BLOCK == JPEG_BLOCK - 1
    edges = (steps[:, at_edge].mean(1) + 1) / (steps[:, ~at_edge].mean(1) + 1)
    columns = [amounts.mean(1), amounts.std(1), (second + 1).log()[:, None], edges.log()[:, None]]
    moments: NDArray[np.float32] = torch.cat(columns, 1).numpy()
    return moments
